"""The results as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean
from types import ModuleType

from methods.claims import Cells, Finding, judge, spread
from methods.results import Result


def render(methods: Mapping[str, tuple[ModuleType, Mapping[int, Result]]], command: str, versions: str) -> str:
    """A section for each method: its numbers over the seeds, then its claims.

    Args:
        methods: Each method's module and the results of its seeds.
        command: What makes them.
        versions: The libraries.
    """
    lines = [
        "# What the recipes reach",
        "",
        f"Made by `{command}` on {versions}, one thread. Percent of held-out samples, mean ± standard deviation over "
        "the seeds; a seed draws the source network, the labelled samples, the new weights and the order of samples. "
        "Differences are of the same seed. Settings were chosen on the seeds 0 to 9, none of which is reported.",
    ]
    for method, (module, seeds) in methods.items():
        if seeds:
            lines += ["", *section(method, module, seeds)]
    return "\n".join(lines) + "\n"


def section(method: str, module: ModuleType, seeds: Mapping[int, Result]) -> list[str]:
    """One method's lines."""
    recipes = ", ".join(f"[{name}]({name})" for name in module.RECIPES)
    numbers = [seeds[seed].numbers for seed in sorted(seeds)]
    codes = ", ".join(dict.fromkeys(seeds[seed].code for seed in sorted(seeds)))
    lines = [f"## {module.TITLE}", "", f"`{method}`: {recipes}; seeds {_spans(seeds)}, at {codes}.", ""]
    if note := getattr(module, "NOTE", ""):
        lines += [" ".join(note.split()), ""]
    lines += _numbers(numbers)
    for picture in getattr(module, "PICTURES", ()):
        lines += ["", f"![{module.TITLE}]({picture})"]
    findings = [judge(claim, numbers) for claim in module.CLAIMS]
    if findings:
        lines += ["", "| paired, in points | required | mean ± std | smallest | seeds that reach it | reached |"]
        lines += ["| --- | --- | --- | --- | --- | --- |", *map(_claim, findings)]
    return lines


def _claim(finding: Finding) -> str:
    required = "" if finding.at_least is None else f"≥ {finding.at_least:+g}"
    reaching = "" if finding.at_least is None else f"{finding.reaching} of {finding.seeds}"
    reached = {None: "", True: "yes", False: "**no**"}[finding.reached]
    measured = f"{finding.mean:+.1f} ± {finding.std:.1f}"
    return f"| {finding.text} | {required} | {measured} | {finding.least:+.1f} | {reaching} | {reached} |"


def _numbers(seeds: Sequence[Cells]) -> Iterable[str]:
    """Mean ± std of every number; names with `` | `` as a table of rows and columns, others in one row each."""
    plain = [name for name in seeds[0] if " | " not in name]
    crossed = [tuple(name.split(" | ", 1)) for name in seeds[0] if " | " in name]
    if crossed:
        rows, columns = (list(dict.fromkeys(pair[i] for pair in crossed)) for i in (0, 1))
        yield f"|  | {' | '.join(columns)} |"
        yield "| --- " * (len(columns) + 1) + "|"
        for row in rows:
            cells = (_cell(f"{row} | {column}", seeds) for column in columns)
            yield f"| {row} | {' | '.join(cells)} |"
    if plain:
        if crossed:
            yield ""
        yield "|  | % |"
        yield "| --- | --- |"
        for name in plain:
            yield f"| {name} | {_cell(name, seeds)} |"


def _cell(name: str, seeds: Sequence[Cells]) -> str:
    values = [cells[name] for cells in seeds if name in cells]
    return f"{mean(values):.1f} ± {spread(values):.1f}" if values else ""


def _spans(seeds: Iterable[int]) -> str:
    """``100–104, 107``."""
    spans: list[list[int]] = []
    for seed in sorted(seeds):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in spans)
