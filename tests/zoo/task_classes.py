"""The sweep over the classes that transformers has for tasks: ``python -m zoo --tasks``.

``become``: a network without a head for classes becomes the class for a task. ``count``: a class that counts labels
gets another number of them. Both are compared with ``from_pretrained(num_labels=N, ignore_mismatched_sizes=True)`` of
the class on the same files: the same names, the same shapes, the same values wherever that loads any, outputs, and a
finite loss where that has one.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import surgeon
from surgeon.errors import ArchitectureError, OperationError
from surgeon.families.transformers.tasks import COUNTED, FEATURES_READ, FIXED, class_for, classes_for, tasks_of
from surgeon.graph.inputs.resolve import find_inputs
from surgeon.operations.replace_head.class_counts import counted_tensors
from surgeon.operations.replace_head.sibling_config import READS_BACK
from zoo.reasons import reason_of
from zoo.results import Result
from zoo.tensors import tensors_in

CLASSES = ["cat", "dog", "bird"]
SWEPT = (*COUNTED, "question_answering", "multiple_choice", "masked_lm", "causal_lm")
"""The tasks of ``become``; ``base`` is swept from the classes that count labels."""
NO_LABELS = {"Nemotron3DiarizationForAudioFrameClassification": "it counts speakers, and labels nowhere"}
"""Classes that transformers lists for a task that counts labels, and that do not count any."""


class DiffersError(Exception):
    """The result is not what transformers makes of the same files."""


def names() -> list[str]:
    """List ``become/TYPE/TASK/CLASS`` and ``count/TYPE/TASK/CLASS`` for every class of a task, detection first."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    become, count, base = [], [], []
    for model_type in CONFIG_MAPPING_NAMES:
        tasks = tasks_of(model_type)
        base_name = class_for("base", model_type)
        for task in tasks:
            cls = class_for(task, model_type)
            if task not in SWEPT or cls is None:
                continue
            if cls != base_name and base_name is not None:
                become.append(f"become/{model_type}/{task}/{cls}")
            if task in COUNTED:
                count.append(f"count/{model_type}/{task}/{cls}")
        counted = next((cls for t in tasks if t in COUNTED and (cls := class_for(t, model_type)) != base_name), None)
        if counted is not None and base_name is not None:
            base.append(f"become/{model_type}/base/{counted}")
    count.sort(key=lambda name: not any(word in name for word in ("detection", "segmentation")))
    return list(dict.fromkeys([*count, *become, *base]))


def examine(name: str, folder: Path, report: Callable[[Result], None]) -> None:
    """Put one class through its check, and report how it went."""
    way, model_type, task, cls = name.split("/")
    warnings.simplefilter("ignore")
    try:
        source = _source(way, model_type, task, cls)
    except Exception as error:
        report(Result(name, way, "no meaning", "plan", f"the source cannot be built here: {reason_of(error)}"))
        return
    if way == "count" and cls in NO_LABELS:
        report(Result(name, way, "no meaning", "plan", NO_LABELS[cls]))
        return
    try:
        note = _check(way, task, cls, source, folder)
    except OperationError as error:
        report(Result(name, way, "refused", "plan", f"{error.where + ': ' if error.where else ''}{error.message}"))
        return
    except Exception as error:
        report(Result(name, way, "failed", "apply", f"{type(error).__name__}: {reason_of(error)}"))
        return
    report(Result(name, way, "ok", note=note))


def _source(way: str, model_type: str, task: str, cls: str) -> nn.Module:
    from zoo.shrinking import transformers_module

    name = cls if way == "count" or task == "base" else class_for("base", model_type)
    assert name is not None  # names() has seen to it
    return transformers_module(model_type, name)[0]


def _check(way: str, task: str, cls: str, source: nn.Module, folder: Path) -> str:
    import transformers

    source.save_pretrained(folder / "source")  # type: ignore[operator]
    if way == "count" or task in COUNTED:
        operation = surgeon.ReplaceHead(classes=CLASSES, task=task if way == "become" else "auto")  # type: ignore[arg-type]
        options: dict[str, Any] = {"num_labels": len(CLASSES)}
    else:
        operation, options = surgeon.ReplaceHead(task=task), {}  # type: ignore[arg-type]
        if task in FIXED:
            options = {"num_labels": 2}
    target = getattr(transformers, cls if task != "base" else type(source).config_class.__name__, None)
    if task == "base":
        target = getattr(transformers, str(class_for("base", source.config.model_type)))  # type: ignore[union-attr]
    edited = surgeon.apply(str(folder / "source"), [operation])
    surgeon.save(edited, folder / "edited")
    if task == "base" and type(edited).__name__ in classes_for("base", source.config.model_type):  # type: ignore[union-attr]
        target = type(edited)  # Funnel has two
    if type(edited) is not target:
        raise DiffersError(f"is a {type(edited).__name__}")
    if not (folder / "edited" / "config.json").exists():
        raise DiffersError("no stock config was written")
    stock, loading = target.from_pretrained(folder / "edited", output_loading_info=True)
    if any(loading[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise DiffersError(f"from_pretrained reports {loading}")
    if cls in FEATURES_READ:  # transformers insists on the blocks that the head reads, surgeon chooses them
        field = FEATURES_READ[cls][0]
        options[field] = getattr(edited.config, field)  # type: ignore[union-attr]
    if task in ("causal_lm", "masked_lm"):  # transformers leaves an encoder's direction as it was
        options |= {name: getattr(edited.config, name) for name in READS_BACK if hasattr(edited.config, name)}
    reference, loading = target.from_pretrained(
        folder / "source", **options, ignore_mismatched_sizes=True, output_loading_info=True
    )
    _compare(edited, stock, reference, loading, _counted(target, edited) if task in COUNTED else set())
    return _run(task, edited.eval(), stock.eval(), reference.eval(), source.eval())


def _counted(target: Any, edited: nn.Module) -> set[str]:
    """Name the tensors with the class count: they are new, even where an old one happens to have their shape."""
    config: Any = edited.config
    try:
        return set(counted_tensors(target, type(config).from_dict(config.to_dict()), "num_labels"))
    except ArchitectureError:
        return set()


def _compare(edited: nn.Module, stock: nn.Module, reference: nn.Module, loading: Any, counted: set[str]) -> None:
    ours, theirs, again = edited.state_dict(), reference.state_dict(), stock.state_dict()
    if ours.keys() != theirs.keys():
        raise DiffersError(f"other names than the reference: {sorted(ours.keys() ^ theirs.keys())[:3]}")
    if wrong := [n for n in ours if ours[n].shape != theirs[n].shape]:
        raise DiffersError(f"{wrong[0]} has shape {tuple(ours[wrong[0]].shape)}, not {tuple(theirs[wrong[0]].shape)}")
    if wrong := [n for n in ours if not torch.equal(ours[n], again[n])]:
        raise DiffersError(f"from_pretrained gives other values for {wrong[0]}")
    fresh = {
        *counted,
        *loading["missing_keys"],
        *(key[0] if isinstance(key, tuple) else key for key in loading["mismatched_keys"]),
    }
    values: dict[int, Tensor] = {}
    for name, tensor in reference.state_dict(keep_vars=True).items():
        if name in fresh:
            values[id(tensor)] = tensor  # its twins are new too
    loaded = [n for n, t in reference.state_dict(keep_vars=True).items() if id(t) not in values]
    heads = [n for n in loaded if not torch.equal(ours[n], theirs[n])]
    trunk: Any = edited.base_model_prefix
    wrong = [n for n in heads if n.startswith(f"{trunk}.")] if trunk in edited._modules else heads
    if wrong:
        raise DiffersError(f"{wrong[0]} has other values than from_pretrained loads")


def _run(task: str, edited: nn.Module, stock: nn.Module, reference: nn.Module, source: nn.Module) -> str:
    for inputs in find_inputs(reference).candidates():
        args, kwargs = inputs.tensors()
        try:
            with torch.no_grad():
                torch.manual_seed(0)
                reference(*args, **kwargs)
        except Exception:
            continue
        with torch.no_grad():
            torch.manual_seed(0)
            ours = dict(tensors_in(edited(*args, **kwargs)))
            torch.manual_seed(0)
            again = dict(tensors_in(stock(*args, **kwargs)))
        finite = [n for n in ours if ours[n].isfinite().all()]
        if ours.keys() != again.keys() or not all(torch.equal(ours[n], again[n]) for n in finite):
            raise DiffersError("from_pretrained of the result gives other outputs")
        return _loss(task, edited, reference, args, kwargs)
    return "the reference does not run on the inputs of a trace"


def _loss(task: str, edited: nn.Module, reference: nn.Module, args: Any, kwargs: dict[str, Any]) -> str:
    """Compare whether there is a loss; in training mode, in which detectors use more of their heads."""
    problem = ""
    for labels in _labels(task, args, kwargs):
        try:
            expected = _loss_of(reference, args, {**kwargs, **labels})
        except Exception as error:
            problem = reason_of(error)
            continue
        loss = _loss_of(edited, args, {**kwargs, **labels})
        if expected.isfinite().all() and not loss.isfinite().all():
            raise DiffersError(f"the loss is {float(loss)}")
        return "loss compared"
    return f"no loss on these labels: {problem}" if problem else "no labels tried"


def _loss_of(model: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        loss = getattr(model.train()(*args, **kwargs), "loss", None)
    model.eval()
    if loss is None:
        raise ValueError("it gives no loss")
    return loss


def _labels(task: str, args: Any, kwargs: dict[str, Any]) -> Iterable[dict[str, Any]]:
    tensors = [v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)]
    batch = tensors[0].shape[0]
    images = next((t for t in tensors if t.dim() == 4), None)
    words = next((t for t in tensors if t.dim() == 2), None)
    classes = torch.tensor([0, 2])
    if "detection" in task or "segmentation" in task:
        boxes = torch.tensor([[0.4, 0.4, 0.3, 0.3], [0.6, 0.6, 0.3, 0.2]])
        detected = [{"class_labels": classes, "boxes": boxes} for _ in range(batch)]
        yield {"labels": detected}
        if images is not None:
            height, width = images.shape[-2:]
            masks = torch.zeros(2, height, width)
            masks[0, : height // 2] = masks[1, height // 2 :] = 1
            universal = {"mask_labels": [masks] * batch, "class_labels": [classes] * batch}
            yield universal
            yield {**universal, "task_inputs": torch.zeros(batch, 77, dtype=torch.long)}
            yield {"labels": [{**one, "masks": masks} for one in detected]}
            yield {"labels": torch.zeros(batch, height, width, dtype=torch.long) + 1}
    elif task in ("token_classification", "audio_frame_classification") and words is not None:
        yield {"labels": torch.ones_like(words, dtype=torch.long)}
    elif task in COUNTED:
        yield {"labels": torch.tensor([2, 0])[:batch]}
        yield {"target_values": torch.tensor([2, 0])[:batch]}


def render(results: Sequence[Result], versions: str) -> str:
    """Write the counts by way and task, and everything that is not ok, as Markdown."""
    lines = [
        "## Task classes",
        "",
        f"Made by `PYTHONPATH=tests python -m zoo --tasks` on {versions}. `become`: the class without a head (for "
        "`base`, one with a head) becomes the class for the task; `count`: the class gets three labels. Compared with "
        "`from_pretrained(num_labels=3, ignore_mismatched_sizes=True)`: names, shapes, loaded values, outputs after "
        "plain `from_pretrained`, and a finite loss.",
        "",
        f"{len(results)} of {len(names())} checks have been run; by the commit that they ran at: "
        + ", ".join(f"{n} at {code or 'an earlier one'}" for code, n in Counter(r.code for r in results).most_common())
        + ". `refused`: an error before anything is written that says why.",
        "",
        "| check | task | ok | of these with a loss | refused | failed | cannot be run here |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        way, _, task, _ = result.model.split("/")
        groups[way, task].append(result)
    for (way, task), group in [*sorted(groups.items()), (("all", ""), list(results))]:
        outcomes = Counter(r.outcome for r in group)
        loss = sum(r.note == "loss compared" for r in group)
        numbers = (outcomes["ok"], loss, outcomes["refused"], outcomes["failed"], outcomes["no meaning"])
        lines.append(f"| {way} | {task} | {' | '.join(map(str, numbers))} |")
    bad: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result in results:
        if result.outcome != "ok":
            way, _, _, cls = result.model.split("/")
            bad[result.outcome, result.reason].append(f"{way} {cls}")
    if bad:
        lines += ["", "| outcome | reason | classes |", "| --- | --- | --- |"]
        for (outcome, reason), classes in sorted(bad.items(), key=lambda item: (item[0][0], -len(item[1]))):
            text = reason.replace("|", "\\|").replace("\n", " ")
            lines.append(f"| {outcome} | {text} | {', '.join(classes)} |")
    return "\n".join([*lines, ""])


def put_section(page: str, section: str) -> str:
    """Replace the section on task classes in a page, or add it at the end."""
    before, title, rest = page.partition("## Task classes\n")
    if not title:
        return page.rstrip("\n") + "\n\n" + section
    _, heading, after = rest.partition("\n## ")
    return before + section + (heading + after if heading else "")


def with_section_of(page: str, old: str) -> str:
    """Take the section on task classes over from an earlier page, if it has one."""
    _, heading, rest = old.partition("## Task classes\n")
    return put_section(page, heading + rest.partition("\n## ")[0] + "\n") if heading else page
