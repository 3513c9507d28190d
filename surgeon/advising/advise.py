"""Advise how to fine-tune a network on data: measure its features, decide on the case, write and try the recipe."""

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
from surgeon.plugins import Plugins
from surgeon.plugins import load as load_plugins
from surgeon.recipe.data_argument import DataRequest, data_request
from surgeon.recipe.load import load_recipe
from surgeon.recipe.train_settings import TrainSettings
from surgeon.surgery.opened import Model
from surgeon.training.anatomy import Anatomy
from surgeon.training.load_splits import load_splits, prepared_as, sources_of

Data = str | Path | Mapping[str, Any] | TrainSettings | DataRequest
"""A recipe with a ``train:`` section, a folder of pictures, a source written out, or ``train:`` settings."""


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
    plugins: Plugins | None = None,
    progress: RunProgress | None = None,
) -> Advice:
    """Advise how to fine-tune a network on data, as ``surgeon advise`` does.

    The features of each block are judged by how well they predict the new labels: by LogME and by a linear probe
    with cross-validation, beside those of fresh weights. From that and from the number of samples follows one of four
    cases (small or large, similar or different), and from the case a recipe, which is planned on the network.

    Args:
        model: The trained network: a path, ``torchvision/NAME@WEIGHTS``, ``hf:ORG/NAME``, an artifact, or a module in
            memory; None takes the ``model`` of a recipe that ``data`` names.
        data: What to fine-tune on: a recipe or a file with a ``train:`` section, a folder of pictures, a source
            written out (``{"source": "digits", "classes": [5, 6, 7]}``), or ``TrainSettings`` that name data.
        at: Selectors of the sites to look at, in the order in which they run, instead of the blocks and the site that
            the head reads.
        large: The number of samples a class from which data count as large.
        samples: The number of labelled samples to look at, at most.
        folder: Where the recipe will be: it names files in that folder relative to it.
        arch: What builds the network, where neither the source nor the recipe says.
        seed: The seed of the samples that are drawn and of new values, instead of the recipe's.
        roles: Roles of sites, as ``{"head": "fc"}``, instead of the recipe's.
        inputs: The inputs to trace with, instead of the recipe's: shapes, or tensors like those of a call.
        key: Which of several state dicts in the source to take.
        trust_pickle: Let pickles in the source run code.
        trust_code: Modules that the recipe or a manifest names (``python:package.module:function``) and that may run.
        plugins: The plugins; the built-in and installed ones if left out.
        progress: Called on the way.

    Returns:
        The measurement, the case with its reasons, the text of the recipe and the picture;
        :meth:`Advice.save` writes the last two.

    Raises:
        RecipeError: ``data`` names no data, or there is no model.
        TrainingError: The model has no weights, or the data cannot be judged by.
        SurgeonError: The source or the data are at fault; the class of the error says which.
    """
    plugins = with_trust(plugins or load_plugins(), trust_code, model, arch)
    progress = progress or RunProgress()
    require("train", "advice")
    request = _data_request(data, plugins)
    chosen = model if model is not None else request.top.get("model")
    if chosen is None:
        raise RecipeError("there is no model to look at", where=request.name, hint="name it: --model MODEL")
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
    with progress.step("looking at the features of each block"):
        advice = _measured(chosen, request, top, at, large, samples, opening)
    with progress.step("trying the recipe"):
        text = _recipe(chosen, advice, request, top, Path(folder), opening)
    name = type(chosen).__name__ if isinstance(chosen, nn.Module) else Path(chosen).name
    picture = picture_of(advice, f"what the features of {name} are worth for {request.name}")
    return dataclasses.replace(advice, recipe=text, picture=picture)


def _data_request(data: Data, plugins: Plugins) -> DataRequest:
    if isinstance(data, DataRequest):
        return data
    if isinstance(data, Mapping):
        return data_request(json.dumps(data), plugins)
    if not isinstance(data, TrainSettings):
        return data_request(str(data), plugins)
    if data.data is None:
        raise RecipeError("the settings name no data", hint="surgeon.TrainSettings(data={'source': 'digits'})")
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
    """Measure the features of each site, trained and with fresh weights."""
    seed, plugins = top.get("seed", 0), opening["plugins"]
    watch = Watch(sites=None if at is None else [Selector(selector) for selector in at])
    options: dict[str, Any] = {"roles": top.get("roles"), "inputs": top.get("inputs"), "seed": seed}
    prepared = prepare(model, [watch], arch=top.get("arch"), **options, **opening)
    if prepared.source.checkpoint is None:
        raise TrainingError(
            f"{model} has no weights, so that there is nothing to transfer",
            hint="name trained ones, as in torchvision/resnet50@DEFAULT",
        )
    sites = watched(prepared.model)
    if len(sites) < 2:
        where = prepared.source.location
        raise TrainingError(
            f"{len(sites)} block is found in {where}, and to compare takes two"
            if sites
            else f"no blocks are found in {where}",
            hint="name the sites to look at with --at; surgeon inspect shows them",
        )
    earlier = prepared.record.model_copy(update={"surgeries": prepared.record.surgeries[:-1]})

    def untrained() -> nn.Module:
        with torch.random.fork_rng(devices=[]):  # the same fresh weights for the same seed, whatever ran before
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
    """Write the first recipe for the case that this network can be taken through."""
    settings, plugins = request.settings, opening["plugins"]
    sources = (("data", settings.data), ("evaluate", settings.evaluate))
    data = {name: _written(given, folder) for name, given in sources if given is not None}
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


def _written(given: Any, folder: Path) -> Any:
    """Write sources of data as the recipe names them, with files relative to the recipe's folder."""
    sources = []
    for source in as_sources(given):
        files = {name: placed(path, folder) for name, path in files_beside(source, Path()).items()}
        sources.append({**source.model_dump(mode="json", exclude_unset=True), **files})
    return sources if isinstance(given, (list, tuple)) else sources[0]
