"""Describe what a network says of its classes, and what its data must fit: names, positions, vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from surgeon.data.network import CLASS_LOSS, Head, Network
from surgeon.errors import TrainingError
from surgeon.families.registry import config_of
from surgeon.families.transformers.tasks import reads_padding
from surgeon.interfaces.record import Record, record_of
from surgeon.interfaces.training import Objective
from surgeon.nn.zero_shot import ZeroShotHead
from surgeon.training.detection import with_detector
from surgeon.training.language import language_of

MAIN = ("logits", "out")
"""The names of a network's main output in transformers and, for segmentation, in torchvision."""
PROBLEMS = {"regression": "mse", "multi_label_classification": "bce"}
"""The losses of transformers' problem types; cross-entropy of others."""
LABELS = "labels"
"""The label column of the main output, unless an objective says otherwise."""
POSITIONS = re.compile(r"(^|\.)(position_embeddings|embed_positions|positions_embed|wpe)$")
LANGUAGE = re.compile(r"(^|\.)(vision|visual|audio|image)\w*\.")


def class_names(model: nn.Module, objectives: Sequence[Objective] = ()) -> dict[str, list[str]]:
    """Return the class names of ``model`` by label column, in the order of its outputs.

    The names are those of its training, else those of the operation that made the head, else those of its config. A
    column without class names is left out.

    Args:
        model: The network.
        objectives: The label column of each output, beside those in the record.
    """
    return {label: list(head.names) for label, head in heads(model, objectives).items() if head.names}


def heads(model: nn.Module, objectives: Sequence[Objective] = (), *, default: bool = True) -> dict[str, Head]:
    """Describe the output that each label column trains.

    Args:
        model: The network.
        objectives: The label column of each output.
        default: Whether the column ``labels`` trains the main output unless they say otherwise.
    """
    record = record_of(model)
    trained_by = list(objectives)
    if not trained_by and record is not None and record.training:
        trained_by = [Objective.model_validate(values) for values in record.training[-1].get("objectives") or ()]
    labels = {objective.label for objective in trained_by}
    trained = {objective.output for objective in trained_by}
    if default and LABELS not in labels and not trained & set(MAIN):
        trained_by.append(Objective(output=MAIN[0], loss=default_loss(model), label=LABELS))
    by_label: dict[str, Head] = {}
    for objective in sorted(
        trained_by, key=lambda o: o.loss != CLASS_LOSS
    ):  # if two share a label, classes take precedence
        if objective.label not in by_label:
            by_label[objective.label] = _head(model, record, objective)
    return by_label


def default_loss(model: nn.Module) -> str:
    """Return the loss of the main output that the config names by its problem type; cross-entropy if it names none."""
    return PROBLEMS.get(str(getattr(getattr(model, "config", None), "problem_type", None)), CLASS_LOSS)


def network_of(
    model: nn.Module, objectives: Sequence[Objective] = (), *, default: bool = True, partial: bool = False
) -> Network:
    """Describe what data for ``model`` must fit; see :func:`heads`. With ``partial``, classes may be missing."""
    by_label = heads(model, objectives, default=default)
    if partial:
        by_label = {label: replace(head, partial=True) for label, head in by_label.items()}
    start = getattr(getattr(model, "config", None), "decoder_start_token_id", None)
    network = Network(by_label, positions(model), context(model), vocabulary(model), language_of(model), start)
    return with_detector(network, model)


def adopt_names(model: nn.Module, names: Mapping[str, Sequence[str]], objectives: Sequence[Objective] = ()) -> None:
    """Write the data's class names into the config of ``model``, if its head has only their number."""
    output = {o.output: o.label for o in reversed(objectives)}
    label = next((output[name] for name in MAIN if name in output), LABELS)
    class_list = [str(name) for name in names.get(label, ())]
    config = config_of(model) if _is_classifier(model) else None
    if config is not None and not config.class_names() and len(config.get("id2label") or ()) == len(class_list):
        config.name_classes(class_list)


def check_padding(model: nn.Module, preprocessing: Mapping[str, Any]) -> None:
    """Refuse texts padded with a token that the network cannot tell from those of a text.

    Raises:
        TrainingError: The network looks for padding, and its tokenizer has no token for it.
    """
    texts = preprocessing.get("texts", {})
    if texts and texts.get("pad_token_id") is None and _reads_padding(model):
        raise TrainingError(
            "the tokenizer names no token that pads, and the network reads a text's class before the padding",
            where="train.data.tokenizer",
            hint="set its pad_token, save it with save_pretrained, and give that folder: tokenizer: FOLDER",
        )


def adopt_padding(model: nn.Module, preprocessing: Mapping[str, Any]) -> str:
    """Set the padding token in the config of ``model``, if it has none or another than the data; return what to note.

    A decoder that classifies reads a text's class at the last token that is not padding. It refuses batches if it knows
    of no such token, and reads the class at padding if its texts are padded with another.
    """
    token = preprocessing.get("texts", {}).get("pad_token_id")
    note = ""
    for config in {id(config): config for config in _text_configs(model)}.values():
        stated = getattr(config, "pad_token_id", token)
        if token is not None and (stated is None or (stated != token and _reads_padding(model))):
            config.pad_token_id = token
            note = "" if stated is None else f"pad_token_id is {token}, as the tokenizer pads; the config said {stated}"
    return note


def _reads_padding(model: nn.Module) -> bool:
    return any(map(reads_padding, type(model).__mro__))


def restore_names(model: nn.Module) -> None:
    """Write the class names and padding of the recorded training into the config of ``model`` again."""
    record = record_of(model)
    if record is not None:
        adopt_padding(model, record.preprocessing)
    if record is not None and record.training:
        objectives = [Objective.model_validate(values) for values in record.training[-1].get("objectives") or ()]
        adopt_names(model, class_names(model, objectives), objectives)


def context(model: nn.Module) -> int | None:
    """Return the most tokens of a text in the network's training, by its config; None if that does not say."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    count = getattr(text, "max_position_embeddings", None)
    return count if isinstance(count, int) and count > 0 else None


def positions(model: nn.Module) -> int | None:
    """Return the most tokens of a text by the network's table of positions; None if it has none."""
    tables = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding) and POSITIONS.search(name) and not LANGUAGE.search(name)
    ]
    counts = []
    for table in tables:
        # RoBERTa counts from after the padding index, BART and OPT from their own offset
        before = table.padding_idx + 1 if table.padding_idx is not None else int(getattr(table, "offset", 0))
        counts.append(table.num_embeddings - before)
    return min(counts, default=None)


def vocabulary(model: nn.Module) -> int | None:
    """Return the number of tokens in the embedding; None if the network has none."""
    try:
        embedding = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError, TypeError):
        return None
    return embedding.num_embeddings if isinstance(embedding, nn.Embedding) else None


def _head(model: nn.Module, record: Record | None, objective: Objective) -> Head:
    output = objective.output
    for name, module in model.named_modules():
        if name == f"grafts.{output}.head" and isinstance(module, ZeroShotHead):
            classes = tuple(map(str, module.names))
            return Head(objective.loss, len(classes), classes, partial=True)
    names, count, replaced = _recorded(record, objective)
    if not replaced and output in MAIN:
        names = names or _config_names(model)
        labels = getattr(getattr(model, "config", None), "id2label", None)
        count = len(labels) if names or (isinstance(labels, dict) and _is_classifier(model)) else None  # type: ignore[arg-type]
    return Head(objective.loss, len(names) or count, names)


def _recorded(record: Record | None, objective: Objective) -> tuple[tuple[str, ...], int | None, bool]:
    """Return names, class count, and whether an operation made the head, from the record."""
    names: tuple[str, ...] = ()
    count: int | None = None
    replaced = False
    surgeries = record.surgeries if record is not None else []
    training = record.training if record is not None else []
    for number in range(len(surgeries) + 1):
        for operation in surgeries[number - 1].operations if number else ():
            classes = _classes(operation, objective.output)
            if classes is not None:
                replaced = True
                names = tuple(map(str, classes)) if isinstance(classes, list) else ()
                count = len(classes) if isinstance(classes, list) else int(classes)
        for entry in training:
            learnt = entry.get("classes", {}).get(objective.label)
            # one logit has two named answers
            fits = learnt and (count in (None, len(learnt)) or (objective.loss, count, len(learnt)) == ("bce", 1, 2))
            if fits and entry.get("surgeries", len(surgeries)) == number:
                names, count = tuple(map(str, learnt)), len(learnt)
    return names, count, replaced


def _classes(operation: Mapping[str, Any], output: str) -> Any:
    """Return the classes that a recorded operation gives ``output``; None if it does not."""
    task = (operation.get("tasks") or {}).get(output)
    if isinstance(task, Mapping):
        return task.get("classes")
    named = output in MAIN or operation.get("task") == output  # a new column's output is its task
    return operation.get("classes") if named and isinstance(operation.get("classes"), (int, list)) else None


def _config_names(model: nn.Module) -> tuple[str, ...]:
    """Return the class names in the config; empty if they are only numbered."""
    config = config_of(model) if _is_classifier(model) else None
    return config.class_names() if config is not None else ()


def _text_configs(model: nn.Module) -> list[Any]:
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "get_text_config"):
        return []
    return [config, config.get_text_config()]


def _is_classifier(model: nn.Module) -> bool:
    return any(task in type(model).__name__ for task in ("Classification", "ForObjectDetection"))
