"""Model surgery for PyTorch: edit trained networks, then fine-tune them.

    import surgeon

    model = surgeon.apply("torchvision/resnet50", [surgeon.ReplaceHead(classes=7), surgeon.Freeze(up_to="layer3")])
    surgeon.save(model, "pets")
    model = surgeon.load("pets")

Names are imported when they are first used: ``import surgeon`` alone does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surgeon.engine import apply, load, plan, save, verify
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
    from surgeon.hookspecs import hookimpl
    from surgeon.operation import Objective, Operation, Schedule, Selector
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
    from surgeon.plans import Plan
    from surgeon.recipe import Recipe, load_recipe
    from surgeon.record import record_of
    from surgeon.training.session import train
    from surgeon.training.settings import TrainSettings
    from surgeon.training.sources import Source

    __version__: str

_HOMES = {
    "surgeon.engine": ("apply", "load", "plan", "save", "verify"),
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
    "surgeon.hookspecs": ("hookimpl",),
    "surgeon.operation": ("Objective", "Operation", "Schedule", "Selector"),
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
    "surgeon.plans": ("Plan",),
    "surgeon.recipe": ("Recipe", "load_recipe"),
    "surgeon.record": ("record_of",),
    "surgeon.training.session": ("train",),
    "surgeon.training.settings": ("TrainSettings",),
    "surgeon.training.sources": ("Source",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdaptInput",
    "AddClasses",
    "Append",
    "ArchitectureError",
    "CheckpointError",
    "Conserve",
    "Freeze",
    "GradientReversal",
    "Insert",
    "Multitask",
    "Objective",
    "Operation",
    "OperationError",
    "OutputError",
    "Plan",
    "PluginError",
    "Progressive",
    "Recipe",
    "RecipeError",
    "Reinit",
    "ReplaceHead",
    "Schedule",
    "Selector",
    "SiteError",
    "Source",
    "Stems",
    "SurgeonError",
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
        from importlib.metadata import version

        return version("surgeon")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'surgeon' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
