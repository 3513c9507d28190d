"""Advise how to fine-tune a network on data: score its features, decide on the case, write and plan the recipe."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from surgeon.advising.advice import Advice, measure
from surgeon.advising.picture import picture_of
from surgeon.advising.prescription import alternatives, placed, recipe
from surgeon.advising.site_features import Watch, watched
from surgeon.architectures.trust import TrustCode, with_trust
from surgeon.data.network import ANY
from surgeon.data.requirements import require
from surgeon.data.sources import as_sources
from surgeon.errors import OperationError, RecipeError, SiteError, TrainingError, name_nearest_option
from surgeon.graph.inputs.resolve import described
from surgeon.interfaces.record import ATTRIBUTE
from surgeon.interfaces.selector import Selector, files_beside
from surgeon.pipeline import api as engine
from surgeon.pipeline.finetune import from_scratch
from surgeon.pipeline.prepare import prepare
from surgeon.pipeline.run_report import RunProgress
from surgeon.plugins import Plugins, as_plugins
from surgeon.recipe.data_argument import DataRequest, data_request
from surgeon.recipe.load import load_recipe
from surgeon.recipe.train_settings import TrainSettings
from surgeon.surgery.opened import Model
from surgeon.training.anatomy import Anatomy
from surgeon.training.load_splits import load_splits, prepared_as, sources_of

Data = str | Path | Mapping[str, Any] | TrainSettings | DataRequest
"""A recipe with a ``train:`` section, a folder of pictures, a source as a recipe has it, or ``train:`` settings."""


@name_nearest_option
def advise(
    model: Model | None,
    data: Data,
    *,
    at: Sequence[str] | None = None,
    large: int = 100,
    samples: int = 2000,
    folder: str | Path = ".",
    arch: str | None = None,
    seed: int | None = None,
    roles: Mapping[str, Any] | None = None,
    inputs: Any = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | Sequence[str] | None = None,
    progress: RunProgress | None = None,
) -> Advice:
    """Advise how to fine-tune a network on data, as ``surgeon advise`` does.

    The features of each block are scored by how well they predict the new labels: with LogME and with a cross-validated
    linear probe, compared with features of untrained weights. The scores and the number of samples give one of four
    cases (small or large, similar or different), and the case gives a recipe, which is planned on the network.

    Args:
        model: The trained network: a path, ``torchvision/NAME@WEIGHTS``, ``hf:ORG/NAME``, an artifact, or a module in
            memory; None for the ``model`` of a recipe given as ``data``.
        data: The data: a recipe or a file with a ``train:`` section, a folder of pictures, a source
            (``{"source": "digits", "classes": [5, 6, 7]}``), or ``TrainSettings`` with data.
        at: Selectors of the sites to examine, in the order of execution, instead of the blocks and the input of the
            head.
        large: The number of samples per class from which data counts as large.
        samples: The most labelled samples to examine.
        folder: The folder of the recipe: files in it are named relative to it.
        arch: What builds the network, if neither the source nor the recipe says.
        seed: The seed for drawing samples and for new values, overriding the recipe's.
        roles: Roles of sites, such as ``{"head": "fc"}``, overriding the recipe's.
        inputs: The inputs to trace with, overriding the recipe's: shapes, or tensors like those of a call.
        key: Which of several state dicts in the source to use.
        trust_pickle: Whether pickles in the source may run code.
        trust_code: Modules, named in the recipe or a manifest (``python:package.module:function``), that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).
        progress: Called during the run.
    Returns:
        The scores, the case with its reasons, the text of the recipe and the picture; :meth:`Advice.save` writes the
        last two.

    Raises:
        RecipeError: ``data`` has no data, or no model is given.
        TrainingError: The model has no weights, or the data cannot be used for scores.
        SurgeonError: The source or the data are invalid; the class of the error says which.
    """
    plugins = with_trust(as_plugins(plugins), trust_code, model, arch)
    progress = progress or RunProgress()
    require("train", "advice")
    request = _data_request(data, plugins)
    chosen = model if model is not None else request.top.get("model")
    if chosen is None:
        raise RecipeError("no model is given", where=request.name, hint="give one: --model MODEL")
    overrides = {
        "model": None if isinstance(chosen, nn.Module) else str(chosen),
        "arch": arch,
        "seed": seed,
        "roles": dict(roles) if roles else None,
        "inputs": described(inputs) if inputs is not None else None,
    }
    top = {**request.top, **{name: value for name, value in overrides.items() if value is not None}}
    if isinstance(chosen, nn.Module):
        top.pop("model", None)
    opening: dict[str, Any] = {"key": key, "trust_pickle": trust_pickle, "plugins": plugins}
    with progress.step("scoring the features of each block"):
        advice = _measured(chosen, request, top, at, large, samples, opening)
    with progress.step("planning the recipe"):
        text = _recipe(chosen, advice, request, top, Path(folder), opening)
    name = type(chosen).__name__ if isinstance(chosen, nn.Module) else Path(chosen).name
    picture = picture_of(advice, f"scores of the features of {name} for {request.name}")
    return dataclasses.replace(advice, recipe=text, picture=picture)


def _data_request(data: Data, plugins: Plugins) -> DataRequest:
    if isinstance(data, DataRequest):
        return data
    if isinstance(data, Mapping):
        return data_request(json.dumps(data), plugins)
    if not isinstance(data, TrainSettings):
        return data_request(str(data), plugins)
    if data.data is None:
        raise RecipeError("the settings have no data", hint="surgeon.TrainSettings(data={'source': 'digits'})")
    return DataRequest(data, name="the data of the settings")


def _measured(
    model: Model,
    request: DataRequest,
    top: Mapping[str, Any],
    at: Sequence[str] | None,
    large: int,
    samples: int,
    opening: Mapping[str, Any],
) -> Advice:
    """Score the features of each site, with trained and with initial weights."""
    seed, plugins = top.get("seed", 0), opening["plugins"]
    watch = Watch(sites=None if at is None else [Selector(selector) for selector in at])
    options: dict[str, Any] = {"roles": top.get("roles"), "inputs": top.get("inputs"), "seed": seed}
    prepared = prepare(model, [watch], arch=top.get("arch"), **options, **opening)
    if prepared.source.checkpoint is None:
        raise TrainingError(
            f"{model} has no weights to transfer",
            hint="give trained weights, such as torchvision/resnet50@DEFAULT",
        )
    sites = watched(prepared.model)
    if len(sites) < 2:
        where = prepared.source.location
        raise TrainingError(
            f"{where} has {len(sites)} block, and a comparison needs two" if sites else f"{where} has no blocks",
            hint="choose sites with --at; surgeon inspect lists them",
        )
    earlier = prepared.record.model_copy(update={"surgeries": prepared.record.surgeries[:-1]})

    def untrained() -> nn.Module:
        with torch.random.fork_rng(devices=[]):  # the same initial weights for the same seed
            torch.manual_seed(seed)
            network = from_scratch(prepared.source, earlier, plugins)
        return engine.apply(network, [watch], inplace=True, plugins=plugins, **options)

    splits = load_splits(request.settings, seed, prepared_as(ANY, prepared.record, sources_of(request.settings)))
    return measure(
        prepared.materialise(), untrained, sites, splits, request.settings, seed=seed, samples=samples, large=large
    )


def _recipe(
    model: Model, advice: Advice, request: DataRequest, top: Mapping[str, Any], folder: Path, opening: Mapping[str, Any]
) -> str:
    """Write the first recipe for the case that this network allows."""
    settings, plugins = request.settings, opening["plugins"]
    sources = (("data", settings.data), ("evaluate", settings.evaluate))
    data = {name: _written(setting, folder) for name, setting in sources if setting is not None}
    written = dict(top)
    if "model" in top:
        written["model"] = placed(top["model"], folder)
    problem: OperationError | SiteError | None = None
    for operations, note in alternatives(advice):
        why_not = f"{note}: {problem}" if note else None
        text = recipe(advice, operations, settings, data, written, why_not=why_not)
        with tempfile.TemporaryDirectory(prefix="surgeon-") as scratch:
            copy = Path(scratch) / "advised.yaml"
            copy.write_text(text, encoding="utf-8")
            loaded = load_recipe(copy, plugins=plugins)
        try:
            prepared = prepare(model, loaded, **opening)
        except (OperationError, SiteError) as error:
            problem = error
            continue
        setattr(prepared.model, ATTRIBUTE, prepared.record)
        if Anatomy(prepared.model, plugins).has_blocks:
            return text
        return recipe(advice, operations, settings, data, written, blocks=False, why_not=why_not)
    assert problem is not None  # there is at least one alternative
    raise problem


def _written(setting: Any, folder: Path) -> Any:
    """Convert data sources to the form of the recipe, with files relative to its folder."""
    sources = []
    for source in as_sources(setting):
        files = {name: placed(path, folder) for name, path in files_beside(source, Path()).items()}
        sources.append({**source.model_dump(mode="json", exclude_unset=True), **files})
    return sources if isinstance(setting, (list, tuple)) else sources[0]
