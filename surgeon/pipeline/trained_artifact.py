"""Train a prepared network, and write it with the curve of its training."""

from __future__ import annotations

from pathlib import Path

from surgeon.checkpoint.artifact import REPLACE
from surgeon.errors import OutputError, SurgeonError
from surgeon.pipeline.check_task import check_task
from surgeon.pipeline.finetune import Trainee, ready, train_ready
from surgeon.pipeline.prepare import Prepared
from surgeon.pipeline.reference_outputs import run_before_writing
from surgeon.pipeline.reload_check import Reload, check_in_memory
from surgeon.pipeline.run_report import RunProgress, RunReport
from surgeon.pipeline.write_model import write_model
from surgeon.plugins import Plugins
from surgeon.recipe.train_settings import TrainSettings
from surgeon.surgery.inspection import inspection_of
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
    """Fill a prepared network, train it, write it and check the artifact; see :func:`surgeon.run_recipe`."""
    check_task(prepared, settings)
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
    """Write a trained network and the curve of its training, and check the artifact.

    If a resumed training had already written its result before it was interrupted, that artifact is checked and kept.

    Raises:
        OutputError: ``path`` holds something else.
    """
    checked: list[Reload] = []
    reference = run_before_writing(trainee.model, inspection_of(trainee.model, plugins, trainee.record.surgeries))

    def reload(written: Path) -> None:
        with progress.step("reloading"):
            checked.append(check_in_memory(trainee.model, trainee, written, plugins, reference))

    if resume and not force and path.exists():
        try:
            reload(path)
        except SurgeonError as error:
            problem = "exists, and differs from the result of this training"
            raise OutputError(f"{path} {problem}", hint=REPLACE) from error
    else:
        write_model(trainee.model, trainee.record, path, plugins, force=force, reference=reference, check=reload)
    picture = path.with_name(f"{path.name}.svg")
    picture.write_text(draw(report.history, f"training of {path.name}"), encoding="utf-8")
    return checked[0]


def _folder_if_wanted(path: Path, settings: TrainSettings, *, force: bool) -> Path | None:
    """Return the folder for checkpoints and logs, ``OUT.checkpoints``; None if the settings need neither.

    Raises:
        OutputError: The folder exists, and ``force`` is not set.
    """
    needs = (settings.arguments.get("save_strategy", "no"), settings.arguments.get("report_to", "none"))
    if all(value in ("no", "none", []) for value in needs):
        return None
    folder = path.with_name(f"{path.name}.checkpoints")
    if folder.exists() and not force:
        raise OutputError(f"{folder} exists", hint="--force replaces the checkpoints in it; -o names another place")
    return folder
