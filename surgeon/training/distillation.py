"""Learn from a teacher: its softened predictions, its top predictions from disk, and its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from surgeon.errors import TrainingError
from surgeon.interfaces.training import Penalty, Term
from surgeon.nn.grafts import Tap
from surgeon.training.anatomy import Anatomy
from surgeon.training.calls import Batch, Call
from surgeon.training.data_fit import outputs_of
from surgeon.training.losses import soft_loss
from surgeon.training.objectives import Target, call_of
from surgeon.training.penalties import Run, in_eval_mode
from surgeon.training.teacher_cache import TopPredictions, compared

WHERE = "train.distill"


class Distillation(Penalty):
    """Learn what a teacher predicts for each sample, beside the labels (Hinton, Vinyals & Dean 2015, section 2).

    The loss of the labels has the weight ``1 - weight``; this adds ``weight · T² · KL(p ‖ q)``, where p and q are the
    teacher's and the network's distributions over the classes, each the softmax of logits divided by the temperature
    T. T² keeps gradients of the same size whatever the temperature. The mean is taken over samples, over labelled
    tokens (those that are not padding where nothing is labelled), or over pixels.

    ``features`` adds ``feature_weight ·`` the mean over pairs of sites of ``Σ (P f - t)² / Σ t²`` (hints: Romero et al.
    2015, eq. 3). P is a linear map from the network's width to the teacher's, learnt beside the network where they
    differ, the identity elsewhere.
    """

    output: str
    weight: float
    temperature: float
    features: dict[str, str]
    feature_weight: float
    top: int | None

    def begin(self, run: Run) -> Term:
        """Run the teacher on a small batch, to see that it predicts the same things, and pair the sites."""
        teacher = run.teacher
        assert teacher is not None  # the loop has loaded it
        assert run.example is not None
        device = next(run.model.parameters()).device
        teacher.to(device)
        example = {name: column.to(device) for name, column in run.example.items()}
        call = call_of(teacher, run.call.inputs)
        pairs = _Pairs(self.features, run, example, call)
        with torch.no_grad(), in_eval_mode(run.model):
            student_outputs, teacher_outputs = run.call(run.model, example), outputs_of(teacher, call, example)
        pairs.match(run)
        target = next((candidate for candidate in run.targets if candidate.objective.output == self.output), None)
        if self.weight:
            _check_shapes(self.output, student_outputs, teacher_outputs)
        cached = TopPredictions.of(run, teacher, call, self.output, self.temperature, self.top) if self.top else None

        def term(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
            features = pairs.student_features()
            total = torch.zeros((), device=device)
            answers: Mapping[str, Tensor] = {}
            if self.features or (self.weight and cached is None):
                with torch.no_grad():
                    answers = call(teacher, batch)
            if self.weight:
                if cached is None:
                    select, place_count = chosen(self.output, outputs, batch, target)
                    teacher_logits = select(answers[self.output])
                    values = soft_loss(select(outputs[self.output]), teacher_logits, self.temperature)
                else:
                    values, place_count = cached.losses(outputs[self.output], batch, target)
                total = total + self.weight * self.temperature**2 * values.sum() / max(place_count, 1)
            if self.features:
                total = total + self.feature_weight * pairs.distance(features, batch)
            return total

        return term


def chosen(
    output: str, outputs: Mapping[str, Tensor], batch: Batch, target: Target | None
) -> tuple[Callable[[Tensor], Tensor], int]:
    """What takes from logits those predictions that are compared, ``(n, classes)``, and how many there are."""
    logits = outputs[output]
    if logits.ndim == 2:
        return lambda values: values, len(logits)
    if logits.ndim == 4:
        return lambda values: values.movedim(1, -1).flatten(0, -2), logits.numel() // logits.shape[1]
    mask = compared(logits, batch, target)
    return lambda values: values[mask], int(mask.sum())


def _check_shapes(output: str, student_outputs: Mapping[str, Tensor], teacher_outputs: Mapping[str, Tensor]) -> None:
    if output not in teacher_outputs:
        raise TrainingError(
            f"the teacher has no output {output!r} (there are: {', '.join(teacher_outputs)})",
            where=f"{WHERE}.output",
            hint="take a teacher with the same task",
        )
    student_shape, teacher_shape = tuple(student_outputs[output].shape), tuple(teacher_outputs[output].shape)
    if student_shape == teacher_shape and len(student_shape) in (2, 3, 4):
        return
    axis = 1 if len(student_shape) == 4 else -1
    if len(student_shape) == len(teacher_shape) and student_shape[axis] != teacher_shape[axis]:
        raise TrainingError(
            f"the network predicts {student_shape[axis]} classes or tokens and the teacher {teacher_shape[axis]}",
            where=f"{WHERE}.teacher",
            hint="take a teacher of the same classes, or the same vocabulary",
        )
    raise TrainingError(
        f"predictions of shape {student_shape} cannot be compared with the teacher's of shape {teacher_shape}",
        where=f"{WHERE}.teacher",
    )


@dataclass
class _Pair:
    site: str
    student: Tap
    teacher: Tap
    axis: int = -1
    weight: Tensor | None = None
    bias: Tensor | None = None


class _Pairs:
    """Sites of the network with those of the teacher, and the maps between their widths."""

    def __init__(self, named: Mapping[str, str], run: Run, example: Batch, call: Call) -> None:
        self.pairs: list[_Pair] = []
        if not named:
            return
        assert run.teacher is not None
        teacher_anatomy = Anatomy(run.teacher, run.plugins)
        for student_site, teacher_site in named.items():
            site = run.tap(run.anatomy, student_site, f"{WHERE}.features")
            self.pairs.append(
                _Pair(student_site, site, run.tap(teacher_anatomy, teacher_site, f"{WHERE}.features, of the teacher"))
            )

    def match(self, run: Run) -> None:
        """Make the maps, by the features of the batch that has just run through both."""
        for pair in self.pairs:
            student, teacher = (
                _value(pair.student, pair.site),
                _value(pair.teacher, f"the teacher's site for {pair.site}"),
            )
            student_shape, teacher_shape = tuple(student.shape), tuple(teacher.shape)
            differing = [axis for axis, (a, b) in enumerate(zip(student_shape, teacher_shape, strict=False)) if a != b]
            widths = {1, len(student_shape) - 1}  # channels are second in pictures and last in tokens
            if len(student_shape) != len(teacher_shape) or len(differing) > 1 or not set(differing) <= widths:
                raise TrainingError(
                    f"features of {pair.site} have shape {student_shape} and the teacher's {teacher_shape}: "
                    "more than their width differs",
                    where=f"{WHERE}.features",
                    hint="pair sites of the same resolution or number of tokens",
                )
            if differing:
                pair.axis = differing[0]
                old, new = student_shape[differing[0]], teacher_shape[differing[0]]
                drawn = torch.Generator().manual_seed(run.seed)
                bound = old**-0.5
                weight = (torch.rand(new, old, generator=drawn) * 2 - 1) * bound
                pair.weight = run.learn(f"{pair.site}.weight", weight.to(student.device))
                pair.bias = run.learn(f"{pair.site}.bias", torch.zeros(new, device=student.device))

    def student_features(self) -> list[Tensor]:
        """The network's features of the forward that has just run."""
        return [_value(pair.student, pair.site) for pair in self.pairs]

    def distance(self, features: Sequence[Tensor], batch: Batch) -> Tensor:
        """The mean over pairs of the squared distance, relative to the teacher's features."""
        parts = []
        for pair, student in zip(self.pairs, features, strict=True):
            teacher = _value(pair.teacher, pair.site).float()
            mapped = student.float()
            if pair.weight is not None:
                mapped = F.linear(mapped.movedim(pair.axis, -1), pair.weight, pair.bias).movedim(-1, pair.axis)
            elif not student.requires_grad:
                raise TrainingError(
                    f"no gradient reaches the features of {pair.site}: all layers before it are frozen",
                    where=f"{WHERE}.features",
                    hint="name a later site",
                )
            mask = batch.get("attention_mask")
            if mask is not None and mapped.ndim == 3 and mapped.shape[:2] == mask.shape:
                mapped, teacher = mapped[mask.bool()], teacher[mask.bool()]
            parts.append((mapped - teacher).pow(2).sum() / teacher.pow(2).sum().clamp(min=1e-12))
        return torch.stack(parts).mean()


def _value(tap: Tap, site: str) -> Tensor:
    value, tap.value = tap.value, None
    if not isinstance(value, Tensor):
        raise TrainingError(f"{site} produces no tensor, or does not run", where=f"{WHERE}.features")
    return value
