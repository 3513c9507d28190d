"""Prepare a run that learns from a teacher: compare the two networks' tasks, share the weights of the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from surgeon.architectures.preprocessing import preprocessing_of
from surgeon.data.network import Network
from surgeon.data.processors import load_tokenizer
from surgeon.data.texts import open_texts
from surgeon.errors import TrainingError, suggest
from surgeon.interfaces.splits import Splits
from surgeon.recipe.train_settings import DistillSettings, TrainSettings
from surgeon.training.calls import MAIN
from surgeon.training.class_names import class_names
from surgeon.training.distillation import Distillation
from surgeon.training.load_splits import sources_of
from surgeon.training.objectives import Target
from surgeon.training.teacher_cache import Numbered, check_fixed

WHERE = "train.distill"


def penalty_of(distill: DistillSettings, outputs: Mapping[str, Tensor]) -> Distillation:
    """The penalty that a recipe's ``distill:`` asks for.

    Raises:
        TrainingError: The network has no such output.
    """
    output = distill.output or next((name for name in MAIN if name in outputs), None)
    if output is None and len(outputs) == 1:
        output = next(iter(outputs))
    if output is None or output not in outputs:
        raise TrainingError(
            f"no output {output!r} to learn from a teacher (there are: {', '.join(outputs)})",
            where=f"{WHERE}.output",
            hint=suggest(output, outputs) if output is not None else "name it: distill: {output: …}",
        )
    return Distillation(
        output=output,
        weight=distill.weight,
        temperature=distill.temperature,
        features=distill.features,
        feature_weight=distill.feature_weight,
        top=distill.top,
    )


def shared(targets: Sequence[Target], penalty: Distillation) -> list[Target]:
    """The objectives, of which those of the output that is learnt from a teacher have the rest of its weight."""
    rest = 1 - penalty.weight
    return [
        replace(target, objective=target.objective.model_copy(update={"weight": target.objective.weight * rest}))
        if target.objective.output == penalty.output
        else target
        for target in targets
    ]


def numbered(settings: TrainSettings, splits: Splits) -> Splits:
    """The data, whose training samples say which they are where the teacher's predictions of them are kept.

    Raises:
        TrainingError: Samples differ in every epoch.
    """
    check_fixed(settings, splits)
    if settings.distill is None or settings.distill.top is None:
        return splits
    return replace(splits, train=Numbered(splits.train))


def check_same_task(
    model: nn.Module,
    teacher: nn.Module,
    settings: TrainSettings,
    splits: Splits,
    targets: Sequence[Target],
    output: str,
) -> None:
    """Refuse a teacher that means other classes, or other tokens, by the same numbers.

    Args:
        model: The network.
        teacher: Its teacher.
        settings: How the network is trained.
        splits: The data.
        targets: The objectives.
        output: The output that is learnt.

    Raises:
        TrainingError: The names of classes, or the vocabularies, differ.
    """
    if settings.distill is None or not settings.distill.weight:
        return
    label = next((target.objective.label for target in targets if target.objective.output == output), "labels")
    student_classes = class_names(model).get(label) or list(splits.names.get(label, ()))
    teacher_classes = class_names(teacher).get(label, [])
    if student_classes and teacher_classes and [*student_classes] != [*teacher_classes]:
        same = set(student_classes) == set(teacher_classes)
        difference = "in another order" if same else f"{', '.join(map(str, teacher_classes[:8]))}"
        raise TrainingError(
            f"the network's classes are {', '.join(map(str, student_classes[:8]))}, and the teacher's {difference}",
            where=f"{WHERE}.teacher",
            hint="take a teacher of the same classes in the same order",
        )
    if "input_ids" in splits.inputs:
        _check_vocabularies(model, teacher, settings)
    if pictures := splits.preprocessing.get("pictures"):
        _check_pictures(pictures, teacher)


def _check_vocabularies(model: nn.Module, teacher: nn.Module, settings: TrainSettings) -> None:
    student_path, teacher_path = (preprocessing_of(network, {"texts"}).tokenizer for network in (model, teacher))
    named = next((source.tokenizer for source in sources_of(settings) if getattr(source, "tokenizer", None)), None)
    if not teacher_path or (named is None and (not student_path or student_path == teacher_path)):
        return
    student = load_tokenizer(student_path) if named is None else open_texts("text", named, None, Network()).tokenizer
    vocab, teacher_vocab = _vocabulary(student), _vocabulary(load_tokenizer(teacher_path))
    differing = next((token for token in vocab if teacher_vocab.get(token) != vocab[token]), None)
    differing = differing if differing is not None else next((t for t in teacher_vocab if t not in vocab), None)
    if differing is not None:
        entry, teacher_entry = (
            f"is {v[differing]}" if differing in v else "is missing" for v in (vocab, teacher_vocab)
        )
        raise TrainingError(
            f"the vocabularies of network and teacher differ: the token {differing!r} {entry} in one and "
            f"{teacher_entry} in the other",
            where=f"{WHERE}.teacher",
            hint="take a teacher with the same tokenizer",
        )


def _check_pictures(pictures: Mapping[str, Any], teacher: nn.Module) -> None:
    """Refuse pictures that are normalised otherwise than the teacher was trained on, where that is known."""
    stated = preprocessing_of(teacher, {"pictures"})
    if stated.pictures is None or stated.notes:
        return
    student_pictures, teacher_pictures = _normalised(pictures), _normalised(stated.pictures)
    if student_pictures is not None and teacher_pictures is not None and student_pictures != teacher_pictures:
        (mean, std), (other_mean, other_std) = student_pictures, teacher_pictures
        raise TrainingError(
            f"the network's pictures have mean {mean} and deviation {std} taken out, the teacher's {other_mean} and "
            f"{other_std}, so that the teacher would not see what it was trained on",
            where=f"{WHERE}.teacher",
            hint=f"train with the teacher's: pixels: {{mean: {other_mean}, std: {other_std}}}",
        )


def _normalised(pictures: Mapping[str, Any]) -> tuple[list[float], list[float]] | None:
    """What is subtracted from each channel and what it is divided by; None where nothing is, or nothing says."""
    config = pictures.get("config", pictures)
    if config.get("do_normalize") is False:
        return None
    mean, std = (config.get(f"image_{name}", config.get(name)) for name in ("mean", "std"))
    if not isinstance(mean, (list, tuple)) or not isinstance(std, (list, tuple)):
        return None
    return [round(float(value), 6) for value in mean], [round(float(value), 6) for value in std]


def _vocabulary(tokenizer: Any) -> dict[str, int]:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary
