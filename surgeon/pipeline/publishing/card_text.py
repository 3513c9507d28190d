"""Write the sections of a model card, in Markdown."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from surgeon.checkpoint.companions import BASE_CARD
from surgeon.pipeline.manifest import recipe_of
from surgeon.pipeline.publishing.card_data import measures_of, pipeline_tag
from surgeon.pipeline.publishing.facts import Facts, name_of_data, sources_of_data

ROWS = (("before training", "before"), ("after training", "after"), ("the same network from scratch", "baseline"))
"""The rows of the table of measures, with their keys in a recorded report."""
FEW = 5
"""How many names a sentence lists."""
CERTAINTY = 1.96
"""Standard deviations of a 95 % interval."""


def card_text(facts: Facts, name: str) -> str:
    """Write the body of a card.

    Args:
        facts: What is known of the artifact.
        name: What the model is called, and loaded by.
    """
    sections = (
        ("", [f"# {name}", _summary(facts)]),
        ("Base model", _base(facts)),
        ("What surgery changed", list(_surgery(facts))),
        ("Training", list(_training(facts))),
        ("How to load it", list(_loading(facts, name))),
        ("Intended use and limits", list(_limits(facts))),
    )
    parts = []
    for title, paragraphs in sections:
        parts += [f"## {title}"] if title and paragraphs else []
        parts += paragraphs
    return "\n\n".join(parts) + "\n"


def _summary(facts: Facts) -> str:
    kind = f"a `{facts.stock_class}` of transformers" if facts.stock_class else "a network"
    architecture = facts.record.architecture
    origin = f" (made from `{architecture}`)" if architecture is not None and not facts.stock_class else ""
    return (
        f"This is {kind}{origin} with {facts.values:,} values in {len(facts.tensors):,} tensors, edited"
        f"{' and fine-tuned' if facts.record.training else ''} by surgeon (`pip install surgeon-torch`)."
    )


def _base(facts: Facts) -> list[str]:
    link = (
        f"[{facts.base_model}](https://huggingface.co/{facts.base_model})" if facts.base_model else _code(facts.source)
    )
    name = facts.base.get("license_name") or facts.base.get("license")
    licence = f"licence: {name}" if name else "its licence is not recorded: look it up before you use or pass this on"
    lines = [f"- {link}; {licence}"]
    if facts.has_base_card:
        lines.append(f"- its card: [{BASE_CARD}]({BASE_CARD})")
    if files := [file for file, fact in (facts.manifest.get("companions") or {}).items() if fact["kind"] == "licence"]:
        lines.append(f"- files of its licence: {', '.join(f'[{file}]({file})' for file in files)}")
    return ["\n".join(lines)]


def _surgery(facts: Facts) -> Iterator[str]:
    for number, past in enumerate(facts.record.surgeries, start=1):
        if len(facts.record.surgeries) > 1:
            yield f"### Recipe {number}"
        lines = [f"- `{step['op']}`{_options(step)}" for step in past.operations]
        yield "\n".join(lines) or "No operation."
        new_tensors = Counter(past.made.values())
        sentences = [f"{len(past.kept):,} tensors come from the base model"]
        sentences += [f"{count:,} {'is' if count == 1 else 'are'} new by `{op}`" for op, count in new_tensors.items()]
        yield ", ".join(sentences) + f" (seed {past.seed})."
        if past.donors:
            yield f"Layers were copied from: {', '.join(_code(_last(donor)) for donor in past.donors)}."
    if frozen := facts.manifest.get("frozen"):
        yield f"{len(frozen):,} tensors are frozen."
    if facts.record.surgeries:
        yield "The last recipe, whole:"
        yield _fenced(recipe_of(facts.record).rstrip("\n"), "yaml")


def _options(step: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{key}: {_short(value)}" for key, value in step.items() if key != "op")
    return f": {_code(settings)}" if settings else ""


def _training(facts: Facts) -> Iterator[str]:
    if not facts.record.training:
        yield "Surgery only: nothing was trained."
    for number, entry in enumerate(facts.record.training, start=1):
        if len(facts.record.training) > 1:
            yield f"### Run {number}"
        yield "\n".join(_setting(entry))
        yield from _measures(entry)


def _setting(entry: Mapping[str, Any]) -> Iterator[str]:
    settings, report, split = entry.get("settings", {}), entry.get("report", {}), entry.get("split") or {}
    sources = list(sources_of_data(settings.get("data")))
    yield f"- data: {', '.join(_code(name_of_data(source)) for source in sources) or 'given in Python'}"
    counts = split.get("counts") or {"train": report.get("train_samples"), "test": report.get("test_samples")}
    parts = ", ".join(f"{count:,} for {part}" for part, count in counts.items() if isinstance(count, int))
    rule = f" ({split['rule']}, seed {split.get('seed')})" if split.get("rule") else ""
    yield f"- samples: {parts}{rule}"
    for label, names in (entry.get("classes") or {}).items():
        yield f"- classes of {_code(label)}: {_listed([str(name) for name in names], 20)}"
    rate = report.get("learning_rate")
    yield (
        f"- epochs: {settings.get('epochs', 1):g}, batch size {settings.get('batch_size')}"
        + (f", learning rate {rate:g}" if isinstance(rate, (int, float)) else "")
        + f", seed {report.get('seed')}; {report.get('trainable', 0):,} parameters were trained"
    )


def _measures(entry: Mapping[str, Any]) -> Iterator[str]:
    """A table of measures on the test samples, beside the controls; then what else was measured after training."""
    report = entry.get("report", {})
    rows = [(label, report[key]) for label, key in ROWS if report.get(key)]
    if not rows:
        return
    names = list(dict.fromkeys(name for _, values in rows for name in values))
    table = [["", *(name.replace("_", " ") for name in names)], ["---", *("---:" for _ in names)]]
    table += [[label, *(_figure(name, values.get(name)) for name in names)] for label, values in rows]
    yield f"On {report.get('test_samples', 0):,} test samples:"
    yield "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    if "baseline" not in report or not report["baseline"]:
        yield "No control from scratch was recorded."
    for output, values in measures_of(entry):
        rest = {name: value for name, value in values.items() if f"{output}_{name}" not in names and name != "samples"}
        if rest:
            listed = ", ".join(f"{name.replace('_', ' ')} {_figure(name, value)}" for name, value in rest.items())
            yield f"After training, {_code(output)} also has: {listed}."


def _loading(facts: Facts, name: str) -> Iterator[str]:
    where = name if "/" in name else "FOLDER"
    argument = f'"hf:{where}"' if "/" in name else f'"{where}"'
    yield "With surgeon, as it was trained, what is frozen included:"
    yield _fenced(f"import surgeon\n\nmodel = surgeon.load({argument})", "python")
    if facts.stock_class:
        yield "Without surgeon:"
        lines = [
            f"from transformers import {facts.stock_class}",
            "",
            f'model = {facts.stock_class}.from_pretrained("{where}")',
        ]
        if tag := pipeline_tag(facts):
            lines[0] += ", pipeline"
            lines.append(f'serve = pipeline("{tag}", model="{where}")')
        yield _fenced("\n".join(lines), "python")
    else:
        yield (
            "Without surgeon: `surgeon export ARTIFACT --to torch-export` (or `onnx`, `hf`) writes the whole network, "
            "and `--to state-dict` its weights for code of your own that builds it."
        )


def _limits(facts: Facts) -> Iterator[str]:
    if names := facts.untrained:
        yield (
            f"**Not ready for use:** {len(names):,} new tensors ({_listed([_code(name) for name in names], FEW)}) were "
            "drawn at random and not trained since. Fine-tune it first."
        )
    lines = []
    for label, listed in facts.classes.items():
        lines.append(
            f"- It tells {len(listed)} classes ({_code(label)}) apart, and puts whatever it is given into one."
        )
    lines += [f"- {line}" for line in _certainty(facts)]
    lines.append("- Other data than those it was measured on may give other figures.")
    place = f"[{BASE_CARD}]({BASE_CARD})" if facts.has_base_card else "the base model's card"
    lines.append(f"- What limits the base model limits it too: see {place}. Biases were not measured.")
    yield "\n".join(lines)
    versions = facts.manifest.get("versions") or {}
    yield f"Made with {', '.join(f'{package} {version}' for package, version in versions.items())}."


def _certainty(facts: Facts) -> Iterator[str]:
    """How sure accuracies are, by the number of test samples (Wilson's interval)."""
    for entry in facts.record.training[-1:]:
        for output, values in measures_of(entry):
            count, share = values.get("samples", 0), values.get("accuracy")
            if share is None or count < 1 or not _of_samples(share, count):
                continue
            spread = CERTAINTY**2 / count
            centre = (share + spread / 2) / (1 + spread)
            half = CERTAINTY * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
            low, high = max(0.0, centre - half), min(1.0, centre + half)
            yield (
                f"The accuracy of {_code(output)} is {100 * share:.1f} % on {count:,.0f} test samples, with a 95 % "
                f"interval from {100 * low:.1f} % to {100 * high:.1f} %."
            )


def _of_samples(share: float, count: float) -> bool:
    """Return whether a share can be one of ``count`` samples: that of their words, tokens or pixels rarely is."""
    right = share * count
    return abs(right - round(right)) < 1e-3


def _figure(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    return f"{100 * value:.1f} %" if name.endswith("accuracy") else f"{value:.4g}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _listed(names: list[str], count: int) -> str:
    return ", ".join(names[:count]) + (f" and {len(names) - count:,} more" if len(names) > count else "")


def _last(location: str) -> str:
    return re.split(r"[/\\]", location)[-1] if not location.startswith(("hf:", "torchvision/")) else location


def _code(text: str) -> str:
    """Show a text as code, whatever it holds."""
    text = " ".join(text.split())
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def _fenced(text: str, language: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
