"""Model surgery for PyTorch: edit trained networks, then fine-tune them.

    import surgeon

    model = surgeon.apply("torchvision/resnet50", [surgeon.ReplaceHead(classes=7), surgeon.Freeze(up_to="layer3")])
    surgeon.save(model, "pets")
    model = surgeon.load("pets")

What stands in ``__all__`` is the public interface; everything else is private and may change. Names are imported when
they are first used: ``import surgeon`` alone does not import torch.

The rooms of the package, from the highest to the lowest; each imports from those below it only:

==================================  ====================================================================================
``cli``                             the commands, one file each; ``cli.render`` draws what they print
``testing``, ``advising``           the conformance kit for plugin authors; advice about how to fine-tune
``pipeline``                        the verbs: open, operate, fill, write, reload, fine-tune
``operations``                      one file or package for each operation; add a new one here
``training``                        the loop on the transformers Trainer: losses, penalties, schedules, feature cache
``surgery``                         what an operation is handed: inspection, edits, origins of tensors, journal, plan
``architectures``                   who can build a network, and which one a file holds
``graph``, ``recipe``               sites, traces, roles, edits, inputs; recipe text, its schema and its mistakes
``families``, ``nn``, ``data``,     facts about families of networks; modules put into networks; sources of samples;
``plugins.py``                      the plugin manager
``interfaces``                      what a plugin author subclasses or implements; imports no torch
``checkpoint``                      bytes: file formats, lazy reading, writing; knows nothing of networks
``errors.py``                       SurgeonError and its children, exit codes, nearest names
==================================  ====================================================================================
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surgeon.errors import (
        ArchitectureError,
        CheckpointError,
        OperationError,
        OutputError,
        PluginError,
        RecipeError,
        SiteError,
        SurgeonError,
        TrainingError,
        VerificationError,
    )
    from surgeon.graph.sites import Site
    from surgeon.interfaces.architecture import ArchitectureProvider
    from surgeon.interfaces.architecture_name import Architecture
    from surgeon.interfaces.composite import Composite, Entry
    from surgeon.interfaces.data import Source
    from surgeon.interfaces.family import Family
    from surgeon.interfaces.hooks import hookimpl
    from surgeon.interfaces.operation import Operation
    from surgeon.interfaces.record import Record, record_of
    from surgeon.interfaces.selector import Selector
    from surgeon.interfaces.splits import Splits
    from surgeon.interfaces.training import Objective, Penalty, Schedule, Stage
    from surgeon.operations import (
        AdaptInput,
        AddClasses,
        Append,
        Conserve,
        Freeze,
        GradientReversal,
        Insert,
        Multitask,
        Progressive,
        Reinit,
        ReplaceHead,
        Stems,
        Transfer,
        Truncate,
        Unfreeze,
        ZeroShot,
    )
    from surgeon.pipeline.api import apply, load, plan, save, verify
    from surgeon.recipe.load import Recipe, load_recipe
    from surgeon.recipe.train_settings import TrainSettings
    from surgeon.surgery.context import Surgery
    from surgeon.surgery.plan import Plan
    from surgeon.training.report import TrainReport
    from surgeon.training.session import train

    __version__: str

_HOMES = {
    "surgeon.errors": (
        "ArchitectureError",
        "CheckpointError",
        "OperationError",
        "OutputError",
        "PluginError",
        "RecipeError",
        "SiteError",
        "SurgeonError",
        "TrainingError",
        "VerificationError",
    ),
    "surgeon.graph.sites": ("Site",),
    "surgeon.interfaces.architecture": ("ArchitectureProvider",),
    "surgeon.interfaces.architecture_name": ("Architecture",),
    "surgeon.interfaces.composite": ("Composite", "Entry"),
    "surgeon.interfaces.data": ("Source",),
    "surgeon.interfaces.family": ("Family",),
    "surgeon.interfaces.hooks": ("hookimpl",),
    "surgeon.interfaces.operation": ("Operation",),
    "surgeon.interfaces.record": (
        "Record",
        "record_of",
    ),
    "surgeon.interfaces.selector": ("Selector",),
    "surgeon.interfaces.splits": ("Splits",),
    "surgeon.interfaces.training": (
        "Objective",
        "Penalty",
        "Schedule",
        "Stage",
    ),
    "surgeon.operations": (
        "AdaptInput",
        "AddClasses",
        "Append",
        "Conserve",
        "Freeze",
        "GradientReversal",
        "Insert",
        "Multitask",
        "Progressive",
        "Reinit",
        "ReplaceHead",
        "Stems",
        "Transfer",
        "Truncate",
        "Unfreeze",
        "ZeroShot",
    ),
    "surgeon.pipeline.api": (
        "apply",
        "load",
        "plan",
        "save",
        "verify",
    ),
    "surgeon.recipe.load": (
        "Recipe",
        "load_recipe",
    ),
    "surgeon.recipe.train_settings": ("TrainSettings",),
    "surgeon.surgery.context": ("Surgery",),
    "surgeon.surgery.plan": ("Plan",),
    "surgeon.training.report": ("TrainReport",),
    "surgeon.training.session": ("train",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdaptInput",
    "AddClasses",
    "Append",
    "Architecture",
    "ArchitectureError",
    "ArchitectureProvider",
    "CheckpointError",
    "Composite",
    "Conserve",
    "Entry",
    "Family",
    "Freeze",
    "GradientReversal",
    "Insert",
    "Multitask",
    "Objective",
    "Operation",
    "OperationError",
    "OutputError",
    "Penalty",
    "Plan",
    "PluginError",
    "Progressive",
    "Recipe",
    "RecipeError",
    "Record",
    "Reinit",
    "ReplaceHead",
    "Schedule",
    "Selector",
    "Site",
    "SiteError",
    "Source",
    "Splits",
    "Stage",
    "Stems",
    "SurgeonError",
    "Surgery",
    "TrainReport",
    "TrainSettings",
    "TrainingError",
    "Transfer",
    "Truncate",
    "Unfreeze",
    "VerificationError",
    "ZeroShot",
    "__version__",
    "apply",
    "hookimpl",
    "load",
    "load_recipe",
    "plan",
    "record_of",
    "save",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from surgeon.interfaces.distribution import surgeon_version

        return surgeon_version() or "0"
    if name not in _HOME_OF:
        raise AttributeError(f"module 'surgeon' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
