"""The largest predictions of a teacher for every training sample, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surgeon.data.labels import IGNORED, present
from surgeon.data.network import DECODED
from surgeon.data.rows import Chosen
from surgeon.errors import TrainingError
from surgeon.graph.tensors import tensors_of
from surgeon.interfaces.splits import Splits
from surgeon.training.cache_room import cache_folder, make_room, used
from surgeon.training.calls import Batch, Call
from surgeon.training.features import add_tensor, varied
from surgeon.training.losses import next_token
from surgeon.training.objectives import Target
from surgeon.training.penalties import Run, in_eval_mode

if TYPE_CHECKING:
    from surgeon.recipe.train_settings import TrainSettings

ROW = "surgeon_row"
"""The column of a batch that says which training samples are in it."""
BATCH = 64
WHERE = "train.distill.top"


class Numbered(Chosen):
    """A dataset whose samples say which they are."""

    def __init__(self, samples: Any) -> None:
        super().__init__(samples, range(len(samples)))

    def __getitem__(self, index: int) -> Any:
        return {**self.samples[index], ROW: torch.tensor(int(index))}

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        """Return the samples of a batch."""
        return [self[index] for index in indices]


def check_fixed(settings: TrainSettings, splits: Splits) -> None:
    """Refuse to keep predictions of samples that differ in every epoch.

    Raises:
        TrainingError: They do.
    """
    distill = settings.distill
    if distill is None:
        return
    if distill.top is None:
        if settings.features == "cache":
            raise TrainingError(
                "with features: cache no sample runs through the network's first layers, so that the teacher gets none",
                where="train.distill",
                hint="keep the teacher's predictions too: distill: {top: 16}; or features: none",
            )
        return
    reason = "they are masked or augmented" if varied(splits.train) else "they are mixed" if settings.mix else None
    if reason is not None:
        raise TrainingError(
            f"predictions cannot be kept: samples differ in every epoch ({reason})",
            where=WHERE,
            hint="leave top out: the teacher runs in every step",
        )


@dataclass
class TopPredictions:
    """The largest log-probabilities of a teacher's softened distributions, for each sample or each of its tokens.

    What is not among them is one more class, "the rest", in the teacher's distribution and in the network's: the
    divergence is exact where all classes are kept, and a lower bound elsewhere.

    Attributes:
        classes: ``(predictions, kept)``: which classes they are of.
        values: Their log-probabilities.
        starts: ``(samples + 1,)``: where the predictions of each sample begin.
        temperature: What logits are divided by.
    """

    classes: Any
    values: Any
    starts: Any
    temperature: float

    @classmethod
    def of(cls, run: Run, teacher: nn.Module, call: Call, output: str, temperature: float, top: int) -> TopPredictions:
        """Load them, or run the teacher over all training samples.

        Raises:
            TrainingError: Its predictions are of pixels, or they do not fit the disk.
        """
        assert run.splits is not None
        writer = _Writer(run.splits, teacher, call, output, temperature, top)
        folder, key = cache_folder(), writer.key()
        paths = [folder / f"{key}-{number}.npy" for number in range(3)]
        if not all(path.exists() for path in paths):
            writer.write(paths)
        used(paths)
        classes, values, starts = (np.load(path, mmap_mode="r") for path in paths)
        return cls(classes, values, starts, temperature)

    def losses(self, logits: Tensor, batch: Batch, target: Target | None) -> tuple[Tensor, int]:
        """The divergence of each prediction that is compared, ``(n,)``, and their number."""
        rows = batch[ROW].tolist()
        places = np.concatenate([np.arange(self.starts[row], self.starts[row + 1]) for row in rows])
        classes = torch.from_numpy(np.array(self.classes[places])).to(logits.device).long()
        values = torch.from_numpy(np.array(self.values[places])).to(logits.device)
        if logits.ndim == 3:
            real = _tokens(logits, batch)
            mask = compared(logits, batch, target)[real]
            logits, classes, values = logits[real][mask], classes[mask], values[mask]
        return top_loss(logits, classes, values, self.temperature), len(logits)


def compared(logits: Tensor, batch: Batch, target: Target | None) -> Tensor:
    """Mark the tokens ``(batch, tokens)`` whose predictions are compared: labelled ones, else those of no padding."""
    size = logits.shape[:2]
    label = None if target is None else batch.get(target.objective.label)
    if target is not None and label is not None and label.shape == size:
        valid = present(label)
        if target.loss is next_token:  # the prediction of a token stands at the one before it
            valid = torch.cat([valid[:, 1:], torch.zeros_like(valid[:, :1])], dim=1)
        return valid
    mask = batch.get("attention_mask")
    if mask is not None and mask.shape == size:
        return mask.bool()
    return torch.ones(size, dtype=torch.bool, device=logits.device)


def top_loss(logits: Tensor, classes: Tensor, values: Tensor, temperature: float) -> Tensor:
    """KL divergence ``(n,)`` over the given classes and the rest of them as one.

    Args:
        logits: The network's, ``(n, all classes)``.
        classes: ``(n, kept)``: the classes of ``values``.
        values: ``(n, kept)``: log-probabilities of the teacher's softened distribution.
        temperature: What logits are divided by.
    """
    scaled = logits.float() / temperature
    new = F.log_softmax(scaled, dim=-1)
    probabilities = values.exp()
    loss = (probabilities * (values - new.gather(1, classes))).sum(1)
    if classes.shape[1] == logits.shape[1]:
        return loss
    rest = (1 - probabilities.sum(1)).clamp(min=0)
    of_rest = new.scatter(1, classes, float("-inf")).logsumexp(1)
    whole: Tensor = loss + torch.special.xlogy(rest, rest) - rest * of_rest
    return whole


@dataclass
class _Writer:
    splits: Splits
    teacher: nn.Module
    call: Call
    output: str
    temperature: float
    top: int

    def key(self) -> str:
        """A digest of the teacher, of the inputs of every sample and of what is kept of its predictions."""
        digest = hashlib.sha256(f"1 {torch.__version__} {self.output} {self.temperature} {self.top}".encode())
        for name, tensor in [*tensors_of(self.teacher), *self.teacher.named_buffers()]:
            add_tensor(digest, name, tensor)
        digest.update(repr(self.teacher).encode())
        for row in range(self._size):
            sample = self.splits.train[row]
            written = ["labels"] if DECODED in self.splits.inputs else []  # from which the decoder's inputs are made
            for name in (*self.splits.inputs, *written):
                if name in sample:
                    add_tensor(digest, name, sample[name])
        return digest.hexdigest()[:40]

    def write(self, paths: Sequence[Path]) -> None:
        """Run the teacher over all samples; the files appear under their names when they are whole."""
        device = next(self.teacher.parameters()).device
        classes: list[Any] = []
        values: list[Any] = []
        counts: list[int] = [0]
        with torch.no_grad(), in_eval_mode(self.teacher):
            for start in range(0, self._size, BATCH):
                samples = [self.splits.train[row] for row in range(start, min(start + BATCH, self._size))]
                batch = {name: column.to(device) for name, column in self.splits.collate(samples).items()}
                logits = self.call(self.teacher, batch)[self.output]
                if logits.ndim not in (2, 3):
                    raise TrainingError(
                        f"predictions of shape {tuple(logits.shape)} are too many to be kept",
                        where=WHERE,
                        hint="leave top out: the teacher runs in every step",
                    )
                if logits.ndim == 3:
                    real = _tokens(logits, batch)
                    counts += real.sum(1).tolist()
                    logits = logits[real]
                else:
                    counts += [1] * len(logits)
                size = min(self.top, logits.shape[-1])
                if not start:
                    make_room(8 * size * len(logits) * -(-self._size // len(samples)))
                best = F.log_softmax(logits.float() / self.temperature, dim=-1).topk(size, dim=-1)
                classes.append(best.indices.int().cpu().numpy())
                values.append(best.values.cpu().numpy())
        arrays = (np.concatenate(classes), np.concatenate(values), np.cumsum(counts))
        for path, array in zip(paths, arrays, strict=True):
            scratch = path.with_name(f".{path.name}.{os.getpid()}")
            with scratch.open("wb") as opened:
                np.save(opened, array)
            scratch.replace(path)

    @property
    def _size(self) -> int:
        return len(self.splits.train)  # type: ignore[arg-type]


def _tokens(logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
    """Mark the tokens of no padding, ``(batch, tokens)``; of a text that is written, those that are learnt."""
    if DECODED in batch and batch["labels"].shape == logits.shape[:2]:
        return batch["labels"] != IGNORED
    mask = batch.get("attention_mask")
    if mask is not None and mask.shape == logits.shape[:2]:
        return mask.bool()
    return torch.ones(logits.shape[:2], dtype=torch.bool, device=logits.device)
