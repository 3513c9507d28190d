"""The results as a page of Markdown."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from zoo.reasons import WHY
from zoo.results import OPERATIONS, STAGES, Result

LIBRARIES = ("torchvision", "transformers")


def render(results: Sequence[Result], command: str, versions: str, names: Sequence[str] = ()) -> str:
    """Counts by operation and outcome, then everything that is not ok.

    Args:
        results: What the sweep found out.
        command: What made them.
        versions: The libraries.
        names: The whole catalog, to say how much of it has been run.
    """
    lines = ["# The sweep", "", f"Made by `{command}` on {versions}.", ""]
    if any(r.code for r in results):
        codes = {op: Counter(r.code or "earlier ones" for r in results if r.operation == op) for op in OPERATIONS}
        groups: dict[str, list[str]] = {}
        for op, counter in ((op, counter) for op, counter in codes.items() if counter):
            groups.setdefault(", ".join(f"{n} at {code}" for code, n in counter.most_common()), []).append(op)
        lines += ["Networks by the commit that they were put through at last:", ""]
        lines += [f"- {', '.join(ops)}: {counts}" for counts, ops in groups.items()] + [""]
    if missing := len(set(names) - {r.model for r in results}):
        lines += [f"**Unfinished: {missing} of {len(names)} networks have not been run yet.**", ""]
    if looked := _only_inspected(results):
        lines += [
            f"Only built and inspected (the same with `--until inspect`, not `--bases`): {len(looked)} networks.",
            "",
        ]
    for library in LIBRARIES:
        chosen = [r for r in results if r.model.startswith(f"{library}/")]
        if chosen:
            lines += [f"## {library}", "", *_counts(chosen, library), "", *_exceptions(chosen), ""]
    if failed := sorted({r.model for r in results if r.outcome == "failed"} & set(WHY)):
        lines += ["## What lies behind", "", *(f"- {model.partition('/')[2]}: {WHY[model]}." for model in failed), ""]
    return "\n".join(lines)


def _only_inspected(results: Sequence[Result]) -> set[str]:
    """The networks that could be inspected, and were put through no operation at all."""
    through = {r.model for r in results if r.operation not in OPERATIONS[:2]}
    return {r.model for r in results if r.operation == "inspect" and r.outcome == "ok"} - through


def _counts(results: Sequence[Result], library: str) -> Iterable[str]:
    built = {r.model for r in results if r.operation == "build" and r.outcome == "ok"}
    models = {r.model for r in results}
    looked = _only_inspected(results)
    kinds = len({m.split("/")[1] for m in models})
    buildable = len({m.split("/")[1] for m in built})
    what = "builders" if library == "torchvision" else f"classes of {kinds} model types"
    yield f"{len(models)} {what}, of which {len(built)} can be built here" + (
        "." if library == "torchvision" else f" ({buildable} model types)."
    )
    yield ""
    yield "| operation | ok | failed | no meaning | failed at plan / apply / save / load / step |"
    yield "| --- | --: | --: | --: | --- |"
    for operation in OPERATIONS[1:]:
        chosen = [r for r in results if r.operation == operation]
        if chosen:
            outcomes = Counter(r.outcome for r in chosen)
            stages = Counter(r.stage for r in chosen if r.outcome == "failed")
            meant = built - looked if operation != "inspect" else built
            lost = len(meant) - len(chosen)
            failed = outcomes["failed"] + lost
            where = " / ".join(str(stages[stage]) for stage in STAGES) if failed else ""
            yield f"| {operation} | {outcomes['ok']} | {failed} | {outcomes['no meaning']} | {where} |"


def _exceptions(results: Sequence[Result]) -> Iterable[str]:
    """One line for each reason, with the networks and operations that it holds for."""
    by_reason: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for r in results:
        if r.outcome != "ok":
            place = f"{r.operation} ({r.stage})" if r.stage and r.outcome == "failed" else r.operation
            by_reason[r.outcome, r.reason][place].append(r.model.partition("/")[2])
    if not by_reason:
        yield "Nothing failed."
        return
    yield "| outcome | reason | operation: networks |"
    yield "| --- | --- | --- |"
    for (outcome, reason), places in sorted(by_reason.items(), key=lambda item: (item[0][0], -_size(item[1]))):
        same: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for place, models in places.items():
            same[tuple(models)].append(place)
        cells = [f"{', '.join(ops)}: {', '.join(models)}" for models, ops in same.items()]
        yield f"| {outcome} | {_cell(reason)} | {_cell('; '.join(cells))} |"


def _size(places: dict[str, list[str]]) -> int:
    return sum(len(models) for models in places.values())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
