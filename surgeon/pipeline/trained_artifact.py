"""Train what is prepared, and write a trained network with the curve of its training."""

from __future__ import annotations

from pathlib import Path

from surgeon.checkpoint.artifact import REPLACE
from surgeon.errors import OutputError, SurgeonError
from surgeon.pipeline import api as engine
from surgeon.pipeline.check_task import check_task
from surgeon.pipeline.finetune import Trainee, ready, train_ready
from surgeon.pipeline.prepare import Prepared
from surgeon.pipeline.reload_check import Reload, check_in_memory
from surgeon.pipeline.run_report import RunProgress, RunReport
from surgeon.plugins import Plugins
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.checkpoints import RUN
from surgeon.training.curve import draw
from surgeon.training.report import TrainReport


def train_and_write(
    prepared: Prepared,
    settings: TrainSettings,
    path: Path,
    force: bool,
    plugins: Plugins,
    progress: RunProgress,
    quiet: bool,
) -> RunReport:
    """Fill a prepared network, train it, write it and check what was written; see :func:`surgeon.run_recipe`."""
    check_task(prepared.model, prepared.plan.outputs, settings, prepared.recipe.operations)
    folder = _folder_if_wanted(path, settings, force=force)
    with progress.step("reading", prepared.plan.bytes_written) as count:
        trainee = ready(prepared, count)
    report = train_ready(trainee, settings, plugins=plugins, folder=folder, quiet=quiet)
    if folder is not None:
        (folder / RUN).unlink(missing_ok=True)  # the run is complete: nothing is left to resume
    reload = save_trained(trainee, report, path, force, plugins, progress)
    return RunReport(path, prepared.plan, report, reload)


def save_trained(
    trainee: Trainee,
    report: TrainReport,
    path: Path,
    force: bool,
    plugins: Plugins,
    progress: RunProgress,
    *,
    resume: bool = False,
) -> Reload:
    """Write a trained network and the curve of its training, and check what was written.

    Where a training is resumed that was interrupted after it had written its result, that is checked and stays.

    Raises:
        OutputError: Something else exists at ``path``.
    """
    checked: list[Reload] = []

    def reload(written: Path) -> None:
        with progress.step("loading it again"):
            checked.append(check_in_memory(trainee.model, trainee, written, plugins))

    if resume and not force and path.exists():
        try:
            reload(path)
        except SurgeonError as error:
            what = "exists, and is not what this training gives"
            raise OutputError(f"{path} {what}", hint=REPLACE) from error
    else:
        engine.save(trainee.model, path, force=force, check=reload)
    picture = path.with_name(f"{path.name}.svg")
    picture.write_text(draw(report.history, f"training of {path.name}"), encoding="utf-8")
    return checked[0]


def _folder_if_wanted(path: Path, settings: TrainSettings, *, force: bool) -> Path | None:
    """The folder for checkpoints and logs, ``OUT.checkpoints``; None where the settings want neither.

    Raises:
        OutputError: It exists, and ``force`` does not allow to replace the checkpoints in it.
    """
    wanted = (settings.arguments.get("save_strategy", "no"), settings.arguments.get("report_to", "none"))
    if all(value in ("no", "none", []) for value in wanted):
        return None
    folder = path.with_name(f"{path.name}.checkpoints")
    if folder.exists() and not force:
        raise OutputError(f"{folder} exists", hint="--force replaces the checkpoints in it; -o names another place")
    return folder
