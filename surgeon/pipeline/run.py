"""Run the command ``apply`` as a function: from a model and a recipe to a checked artifact on disk.

Training is imported only if a recipe trains: its libraries are slow to import, and need not be installed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from surgeon.architectures.trust import TrustCode
from surgeon.checkpoint.artifact import check_output
from surgeon.errors import name_nearest_option
from surgeon.pipeline.check_settings import check_training
from surgeon.pipeline.companions import left_behind
from surgeon.pipeline.prepare import Operations, as_recipe, prepare
from surgeon.pipeline.reference_outputs import is_small, run_before_writing
from surgeon.pipeline.reload_check import Reload, check_streamed
from surgeon.pipeline.run_report import RunProgress, RunReport
from surgeon.plugins import Plugins, as_plugins
from surgeon.surgery.inspection import inspection_of
from surgeon.surgery.opened import Model


@name_nearest_option
def run_recipe(
    model: Model | None,
    operations: Operations,
    output: str | Path,
    *,
    train: bool = True,
    force: bool = False,
    arch: str | None = None,
    seed: int | None = None,
    roles: Mapping[str, Any] | None = None,
    inputs: Any = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | Sequence[str] | None = None,
    outputs: bool = True,
    progress: RunProgress | None = None,
    quiet: bool = True,
) -> RunReport:
    """Apply a recipe, train by its ``train:`` section if it has one, write the artifact and check it.

    Without training, the weights are streamed from the source to the artifact and never all in memory. With training,
    its curve is drawn beside the artifact, in ``OUTPUT.svg``.

    Args:
        model: The network: a path, ``torchvision/NAME[@WEIGHTS]``, ``hf:ORG/NAME``, an artifact, or a module in memory;
            None for the recipe's ``model``.
        operations: A recipe, the path of one, one operation, or several.
        output: A folder, a ``.safetensors`` or a ``.pt`` file; it must not exist unless ``force``.
        train: Whether to train by the recipe's ``train:`` section.
        force: Whether to replace an existing output.
        arch: What builds the network, if neither the source nor the recipe says.
        seed: The seed of new values and of training, overriding the recipe's.
        roles: Roles of sites, such as ``{"head": "fc"}``, added to the recipe's or overriding them by name.
        inputs: The inputs to trace with, overriding the recipe's: shapes, or tensors like those of a call.
        key: Which of several state dicts in the source to use.
        trust_pickle: Whether pickles in the source may run code.
        trust_code: Modules, named in the recipe or a manifest (``python:package.module:function``), that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).
        outputs: Whether to trace the result, so that the plan lists its outputs.
        progress: Called during the run.
        quiet: Whether to show no progress bar while training.

    Raises:
        OutputError: The output exists or cannot be written to.
        VerificationError: The reloaded artifact differs from the network.
        SurgeonError: The recipe, the source, an operation or the training is invalid; the class says which.
    """
    plugins, progress, path = as_plugins(plugins), progress or RunProgress(), Path(output)
    recipe = as_recipe(operations, plugins)
    settings = recipe.train if train else None
    if settings is not None:
        with progress.step("checking the training settings"):
            check_training(recipe, plugins, on_this_machine=True)
    check_output(path, force=force, inputs=[])
    with progress.step("reading the model and planning"):
        prepared = prepare(
            model,
            recipe,
            arch=arch,
            seed=seed,
            roles=roles,
            inputs=inputs,
            key=key,
            trust_pickle=trust_pickle,
            trust_code=trust_code,
            plugins=plugins,
            outputs=outputs,
        )
    plugins = prepared.plugins
    check_output(path, force=force, inputs=prepared.inputs, nbytes=prepared.plan.bytes_written)
    if note := left_behind(path, prepared.record.companions):
        prepared.plan = dataclasses.replace(prepared.plan, notes=(*prepared.plan.notes, note))
    progress.planned(prepared.plan)
    if settings is not None:
        from surgeon.pipeline.trained_artifact import train_and_write

        return train_and_write(prepared, settings, path, force, plugins, progress, quiet)
    checked: list[Reload] = []

    def reload(written: Path) -> None:
        with progress.step("reloading"):
            checked.append(check_streamed(prepared, written, plugins, reference))

    with progress.step("writing", prepared.plan.bytes_written) as count:
        reference = None
        if is_small(prepared.model):
            network = prepared.materialise()
            reference = run_before_writing(network, inspection_of(network, plugins, prepared.record.surgeries))
        prepared.write(path, force=force, progress=count, check=reload, reference=reference)
    return RunReport(path, prepared.plan, None, checked[0])
