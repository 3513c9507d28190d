"""Model surgery for PyTorch: edit trained networks, then fine-tune them.

    import surgeon

    model = surgeon.apply("torchvision/resnet50", [surgeon.ReplaceHead(classes=7), surgeon.Freeze(up_to="layer3")])
    surgeon.save(model, "pets")
    model = surgeon.load("pets")

What stands in ``__all__`` is the public interface; everything else is private and may change. Names are imported when
they are first used: ``import surgeon`` alone does not import torch.

The rooms of the package, from the highest to the lowest; each imports from those below it only:

=================  =====================================================================================================
``docs``           generates the documentation site from the code; not in the wheel
``cli``            the commands, one file each; ``cli.render`` draws what they print
``testing``        the conformance kit for plugin authors
``scaffold``       writes new plugin packages
``advising``       advice about how to fine-tune a network on given data
``pages``          self-contained HTML pages about networks, plans, comparisons and trainings
``pipeline``       the public verbs and their steps: open, operate, read weights, write, reload, train, export, publish
``operations``     one file or package for each operation that a recipe can name
``training``       the loop on the transformers Trainer: losses, penalties, schedules, metrics, the feature cache
``surgery``        what an operation uses to inspect and edit a network, and the journal, plan and replay behind it
``architectures``  what builds a network (torchvision, transformers, plugins), and which network a checkpoint holds
``graph``          one module tree and one forward through it: sites, traces, roles, elementary edits, inputs
``recipe``         the recipe file: its text, its schema, all of its errors at once
``families``       facts about families of networks as data: where the head is, which config field counts the blocks
``nn``             modules that operations put into networks
``data``           sources of training data
``plugins.py``     the plugin manager
``interfaces``     what a plugin author subclasses or implements; imports no torch
``checkpoint``     bytes on disk: file formats, artifacts, the files next to weights; knows nothing of networks
``errors.py``      SurgeonError and its children, exit codes, nearest names
=================  =====================================================================================================

To add something, open the ``__init__.py`` of its room, which names the file and the lists to extend. An operation goes
into ``operations``, a fact about a family into ``families``, a format to read or a kind of file next to the weights
into ``checkpoint``, a format to export into ``pipeline.exports``, a loss or metric into ``training``, a source of
samples into ``data``, a command into ``cli``. What a command does goes into a room below, so that Python can call it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surgeon.advising.advice import Advice
    from surgeon.advising.advise import advise
    from surgeon.architectures.fingerprint_table import fingerprint_table
    from surgeon.architectures.identify import match
    from surgeon.architectures.identify_by import identify_by
    from surgeon.checkpoint.formats import Checkpoint
    from surgeon.errors import (
        ArchitectureError,
        CheckpointError,
        ExportError,
        HubError,
        OperationError,
        OutputError,
        PluginError,
        RecipeError,
        SiteError,
        SurgeonError,
        SurgeonWarning,
        TrainingError,
        VerificationError,
    )
    from surgeon.graph.sites import Site
    from surgeon.graph.skeleton import build_skeleton
    from surgeon.interfaces.architecture import ArchitectureProvider
    from surgeon.interfaces.architecture_name import Architecture
    from surgeon.interfaces.composite import Composite, Entry
    from surgeon.interfaces.data import Source
    from surgeon.interfaces.family import Argument, BlockFields, ConfigFields, Family
    from surgeon.interfaces.hooks import hookimpl
    from surgeon.interfaces.match import Match
    from surgeon.interfaces.operation import Operation
    from surgeon.interfaces.record import Record, record_of
    from surgeon.interfaces.registered import register
    from surgeon.interfaces.selector import Selector
    from surgeon.interfaces.splits import Splits
    from surgeon.interfaces.training import Objective, Penalty, Schedule, Stage
    from surgeon.operations import (
        AdaptInput,
        AddClasses,
        Append,
        Conserve,
        Convert,
        DropOutputs,
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
    from surgeon.pages.write import write_page
    from surgeon.pipeline.api import apply, check, load, plan, save, verify
    from surgeon.pipeline.comparison import diff
    from surgeon.pipeline.difference import Diff
    from surgeon.pipeline.evaluation import evaluate
    from surgeon.pipeline.exports.exporter import Export, export
    from surgeon.pipeline.finetune import finetune
    from surgeon.pipeline.network_view import NetworkView, inspect
    from surgeon.pipeline.prediction import predict
    from surgeon.pipeline.publishing.hub import Pushed, push
    from surgeon.pipeline.publishing.model_card import card
    from surgeon.pipeline.run import run_recipe
    from surgeon.pipeline.run_report import RunProgress, RunReport
    from surgeon.pipeline.signature import SignedBy, sign
    from surgeon.pipeline.training_run import run_training
    from surgeon.pipeline.verification import Verification
    from surgeon.plugins import Plugins, load_plugins
    from surgeon.recipe.catalog import describe_operations
    from surgeon.recipe.load import Recipe, load_recipe
    from surgeon.recipe.schema import recipe_schema
    from surgeon.recipe.train_settings import TrainSettings
    from surgeon.surgery.context import Surgery
    from surgeon.surgery.plan import Plan
    from surgeon.training.evaluation import Evaluation
    from surgeon.training.predictions import Predictions
    from surgeon.training.report import TrainReport
    from surgeon.training.session import train

    __version__: str

_HOMES = {
    "surgeon.advising.advice": ("Advice",),
    "surgeon.advising.advise": ("advise",),
    "surgeon.architectures.identify": ("match",),
    "surgeon.architectures.fingerprint_table": ("fingerprint_table",),
    "surgeon.architectures.identify_by": ("identify_by",),
    "surgeon.checkpoint.formats": ("Checkpoint",),
    "surgeon.errors": (
        "ArchitectureError",
        "CheckpointError",
        "ExportError",
        "HubError",
        "OperationError",
        "OutputError",
        "PluginError",
        "RecipeError",
        "SiteError",
        "SurgeonError",
        "SurgeonWarning",
        "TrainingError",
        "VerificationError",
    ),
    "surgeon.graph.sites": ("Site",),
    "surgeon.graph.skeleton": ("build_skeleton",),
    "surgeon.interfaces.architecture": ("ArchitectureProvider",),
    "surgeon.interfaces.architecture_name": ("Architecture",),
    "surgeon.interfaces.composite": ("Composite", "Entry"),
    "surgeon.interfaces.data": ("Source",),
    "surgeon.interfaces.family": (
        "Argument",
        "BlockFields",
        "ConfigFields",
        "Family",
    ),
    "surgeon.interfaces.hooks": ("hookimpl",),
    "surgeon.interfaces.match": ("Match",),
    "surgeon.interfaces.operation": ("Operation",),
    "surgeon.interfaces.record": (
        "Record",
        "record_of",
    ),
    "surgeon.interfaces.registered": ("register",),
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
        "Convert",
        "DropOutputs",
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
    "surgeon.pages.write": ("write_page",),
    "surgeon.pipeline.api": (
        "apply",
        "check",
        "load",
        "plan",
        "save",
        "verify",
    ),
    "surgeon.pipeline.comparison": ("diff",),
    "surgeon.pipeline.difference": ("Diff",),
    "surgeon.pipeline.evaluation": ("evaluate",),
    "surgeon.pipeline.exports.exporter": (
        "Export",
        "export",
    ),
    "surgeon.pipeline.finetune": ("finetune",),
    "surgeon.pipeline.network_view": (
        "NetworkView",
        "inspect",
    ),
    "surgeon.pipeline.prediction": ("predict",),
    "surgeon.pipeline.publishing.hub": (
        "Pushed",
        "push",
    ),
    "surgeon.pipeline.publishing.model_card": ("card",),
    "surgeon.pipeline.run": ("run_recipe",),
    "surgeon.pipeline.run_report": (
        "RunProgress",
        "RunReport",
    ),
    "surgeon.pipeline.signature": ("SignedBy", "sign"),
    "surgeon.pipeline.training_run": ("run_training",),
    "surgeon.pipeline.verification": ("Verification",),
    "surgeon.plugins": (
        "Plugins",
        "load_plugins",
    ),
    "surgeon.recipe.catalog": ("describe_operations",),
    "surgeon.recipe.load": (
        "Recipe",
        "load_recipe",
    ),
    "surgeon.recipe.schema": ("recipe_schema",),
    "surgeon.recipe.train_settings": ("TrainSettings",),
    "surgeon.surgery.context": ("Surgery",),
    "surgeon.surgery.plan": ("Plan",),
    "surgeon.training.evaluation": ("Evaluation",),
    "surgeon.training.predictions": ("Predictions",),
    "surgeon.training.report": ("TrainReport",),
    "surgeon.training.session": ("train",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AdaptInput",
    "AddClasses",
    "Advice",
    "Append",
    "Architecture",
    "ArchitectureError",
    "ArchitectureProvider",
    "Argument",
    "BlockFields",
    "Checkpoint",
    "CheckpointError",
    "Composite",
    "ConfigFields",
    "Conserve",
    "Convert",
    "Diff",
    "DropOutputs",
    "Entry",
    "Evaluation",
    "Export",
    "ExportError",
    "Family",
    "Freeze",
    "GradientReversal",
    "HubError",
    "Insert",
    "Match",
    "Multitask",
    "NetworkView",
    "Objective",
    "Operation",
    "OperationError",
    "OutputError",
    "Penalty",
    "Plan",
    "PluginError",
    "Plugins",
    "Predictions",
    "Progressive",
    "Pushed",
    "Recipe",
    "RecipeError",
    "Record",
    "Reinit",
    "ReplaceHead",
    "RunProgress",
    "RunReport",
    "Schedule",
    "Selector",
    "SignedBy",
    "Site",
    "SiteError",
    "Source",
    "Splits",
    "Stage",
    "Stems",
    "SurgeonError",
    "SurgeonWarning",
    "Surgery",
    "TrainReport",
    "TrainSettings",
    "TrainingError",
    "Transfer",
    "Truncate",
    "Unfreeze",
    "Verification",
    "VerificationError",
    "ZeroShot",
    "__version__",
    "advise",
    "apply",
    "build_skeleton",
    "card",
    "check",
    "describe_operations",
    "diff",
    "evaluate",
    "export",
    "finetune",
    "fingerprint_table",
    "hookimpl",
    "identify_by",
    "inspect",
    "load",
    "load_plugins",
    "load_recipe",
    "match",
    "plan",
    "predict",
    "push",
    "recipe_schema",
    "record_of",
    "register",
    "run_recipe",
    "run_training",
    "save",
    "sign",
    "train",
    "verify",
    "write_page",
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
