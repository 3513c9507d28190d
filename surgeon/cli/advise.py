"""Advice before any surgery: ``advise``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from surgeon.cli import options
from surgeon.cli.catalog import print_json
from surgeon.cli.outputs import refuse_to_replace, write_text
from surgeon.errors import RecipeError

if TYPE_CHECKING:
    from surgeon.advising.advice import Advice
    from surgeon.advising.asking import Asked
    from surgeon.plugins import Plugins


def advise(
    context: typer.Context,
    data: options.Data,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="The trained network: a checkpoint file, a folder, torchvision/NAME@WEIGHTS or hf:ORG/NAME.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="RECIPE", help="Where the recipe goes; the picture beside it.")
    ] = Path("advised.yaml"),
    at: Annotated[
        list[str] | None,
        typer.Option(
            "--at",
            metavar="SELECTOR",
            help="Look at these sites, in the order in which they run, instead of the blocks and what the head reads. "
            "Repeatable.",
        ),
    ] = None,
    large: Annotated[
        int, typer.Option("--large", min=1, help="From how many samples a class on data are large.")
    ] = 100,
    samples: Annotated[int, typer.Option("--samples", min=4, help="Look at so many labelled samples at most.")] = 2000,
    arch: options.Arch = None,
    seed: options.Seed = None,
    plugin: options.PluginNames = None,
    key: options.Key = None,
    trust_pickle: options.TrustPickle = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Say how to fine-tune a network for data at hand.

    Each block's features are judged by how well they tell the new labels: by LogME and by a linear probe on parts
    held out in turn, beside those of fresh weights. From that and from how much data there are follows one of four
    cases (small or large, similar or different), and from the case a recipe.
    """
    from surgeon.advising.asking import asked_for

    plugins: Plugins = context.obj
    asked = asked_for(data, plugins)
    chosen = model or asked.top.get("model")
    if chosen is None:
        raise RecipeError("there is no model to look at", where=data, hint="name it: --model MODEL")
    picture = output.with_suffix(".svg")
    refuse_to_replace(output, picture, force=force)
    top: dict[str, Any] = {**asked.top, "model": chosen}
    top |= {name: value for name, value in (("arch", arch), ("seed", seed)) if value is not None}
    from surgeon.advising.picture import picture_of
    from surgeon.cli.render.advice import render_advice
    from surgeon.cli.render.consoles import show, working

    silent = quiet or as_json
    with working("looking at the features of each block", quiet=silent):
        advice = _advice(asked, top, at, large, samples, key, trust_pickle, plugins)
    with working("trying the recipe", quiet=silent):
        text = _recipe(advice, asked, top, output, key, trust_pickle, plugins)
    write_text(output, text)
    write_text(picture, picture_of(advice, f"what the features of {Path(chosen).name} are worth for {data}"))
    if as_json:
        print_json({**advice.to_dict(), "recipe": str(output), "picture": str(picture)})
    elif not quiet:
        show(render_advice(advice, str(output), str(picture)))


def _advice(
    asked: Asked,
    top: dict[str, Any],
    at: list[str] | None,
    large: int,
    samples: int,
    key: str | None,
    trust_pickle: bool,
    plugins: Plugins,
) -> Advice:
    from surgeon.advising.advice import measure
    from surgeon.advising.watching import Watch, watched
    from surgeon.errors import TrainingError
    from surgeon.pipeline import api as engine
    from surgeon.pipeline.finetune import from_scratch
    from surgeon.pipeline.prepare import prepare
    from surgeon.training.load_splits import load_splits, sources_of, stated_for

    seed = top.get("seed", 0)
    watch: Any = Watch(sites=at)
    given: dict[str, Any] = {"roles": top.get("roles"), "inputs": top.get("inputs"), "plugins": plugins, "seed": seed}
    prepared = prepare(top["model"], [watch], arch=top.get("arch"), key=key, trust_pickle=trust_pickle, **given)
    if prepared.source.checkpoint is None:
        raise TrainingError(
            f"{top['model']} has no weights, so that there is nothing to transfer",
            hint="name trained ones, as in torchvision/resnet50@DEFAULT",
        )
    sites = watched(prepared.model)
    if len(sites) < 2:
        raise TrainingError(
            f"{len(sites)} block is found in {top['model']}, and to compare takes two"
            if sites
            else f"no blocks are found in {top['model']}",
            hint="name the sites to look at with --at; surgeon inspect shows them",
        )
    earlier = prepared.record.model_copy(update={"surgeries": prepared.record.surgeries[:-1]})

    def untrained() -> Any:
        return engine.apply(from_scratch(prepared.source, earlier, plugins), [watch], inplace=True, **given)

    splits = load_splits(asked.settings, seed, stated_for(prepared.record, sources_of(asked.settings)))
    return measure(
        prepared.materialise(), untrained, sites, splits, asked.settings, seed=seed, samples=samples, large=large
    )


def _recipe(
    advice: Advice,
    asked: Asked,
    top: dict[str, Any],
    output: Path,
    key: str | None,
    trust_pickle: bool,
    plugins: Plugins,
) -> str:
    """The text of the first recipe for the case that this network can be taken through."""
    import tempfile

    from surgeon.advising.prescribing import alternatives, placed, recipe
    from surgeon.data.sources import as_sources
    from surgeon.errors import OperationError, SiteError
    from surgeon.interfaces.record import ATTRIBUTE
    from surgeon.interfaces.selector import files_beside
    from surgeon.pipeline.prepare import prepare
    from surgeon.recipe.load import load_recipe
    from surgeon.training.anatomy import Anatomy

    def named(given: Any) -> Any:
        sources = []
        for source in as_sources(given):
            files = {name: placed(path, output.parent) for name, path in files_beside(source, Path()).items()}
            sources.append({**source.model_dump(mode="json", exclude_unset=True), **files})
        return sources if isinstance(given, (list, tuple)) else sources[0]

    settings = asked.settings
    data = {name: named(given) for name in ("data", "evaluate") if (given := getattr(settings, name)) is not None}
    written = {**top, "model": placed(top["model"], output.parent)}
    problem: OperationError | SiteError | None = None
    for operations, note in alternatives(advice):
        why_not = f"{note}: {problem}" if note else None
        text = recipe(advice, operations, settings, data, written, why_not=why_not)
        with tempfile.TemporaryDirectory(prefix="surgeon-") as scratch:
            copy = Path(scratch) / output.name
            copy.write_text(text, encoding="utf-8")
            loaded = load_recipe(copy, plugins=plugins)
        try:
            prepared = prepare(top["model"], loaded, key=key, trust_pickle=trust_pickle, plugins=plugins)
        except (OperationError, SiteError) as error:
            problem = error
            continue
        setattr(prepared.model, ATTRIBUTE, prepared.record)
        if Anatomy(prepared.model, plugins).has_blocks:
            return text
        return recipe(advice, operations, settings, data, written, blocks=False, why_not=why_not)
    assert problem is not None  # there is an alternative
    raise problem
