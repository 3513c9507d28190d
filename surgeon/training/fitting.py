"""Whether a network and its data go together, and what to say where they do not."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from surgeon.errors import TrainingError
from surgeon.interfaces.splits import Splits
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.objectives import Batch, Call


def first_outputs(model: nn.Module, splits: Splits) -> tuple[dict[str, Tensor], Batch]:
    """Run ``model`` in eval mode on two training samples; returns its outputs by name, and the batch.

    Raises:
        TrainingError: The model does not accept them.
    """
    first = splits.collate([splits.train[i] for i in range(min(2, len(splits.train)))])  # type: ignore[arg-type]
    device = next(model.parameters()).device
    batch = {name: column.to(device) for name, column in first.items()}
    model.eval()
    return outputs_of(model, Call.of(model, splits.inputs), batch), batch


def outputs_of(model: nn.Module, call: Call, batch: Batch) -> dict[str, Tensor]:
    """Run ``model`` on a batch; returns its outputs by name.

    Raises:
        TrainingError: The model does not accept it.
    """
    inputs = {name: batch[name] for name in call.inputs}
    try:
        return call(model, batch)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise _misfit(model, inputs, error) from error


def _misfit(model: nn.Module, inputs: Mapping[str, Tensor], error: Exception) -> TrainingError:
    """What to say of a model that does not accept the data."""
    shapes = ", ".join(f"{name} {tuple(column.shape)}" for name, column in inputs.items())
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    pixels = inputs.get("pixel_values")
    hint = _advice(model, with_pictures=pixels is not None)
    if pixels is not None and pixels.ndim == 4 and channels not in (None, pixels.shape[1]):
        said = f"its first convolution takes {channels} channels and the data have {pixels.shape[1]}"
        hint = f"of the source digits: channels: {channels}; of others: pixels: {{channels: {channels}}}"
    return TrainingError(f"the model does not accept a batch of {shapes}: {said}", where="train.data", hint=hint)


def _advice(model: nn.Module, *, with_pictures: bool) -> str:
    """Say what may be wrong with data that a model does not accept."""
    other = sorted(
        {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()} - {"float32"}
    )
    if other:
        return (
            f"its weights are {', '.join(other)} and data are float32: convert the network before, with model.float()"
        )
    if with_pictures:
        return (
            "pictures need the size that it was made for; of the source digits: size: N; of others: pixels: {size: N}"
        )
    return (
        "the columns that are fed to it must have the shapes that its forward takes; surgeon inspect shows its layers"
    )


@contextlib.contextmanager
def step_errors_explained(settings: TrainSettings) -> Iterator[None]:
    """Turn what is known to go wrong in a training step into an error that says what to do."""
    try:
        yield
    except IndexError as error:  # of cross-entropy on a CPU, for data that do not know all of their labels before
        if "out of bounds" not in str(error):
            raise
        raise TrainingError(
            f"a label is out of range: {str(error).strip().rstrip('.')}",
            where="train.data",
            hint="classes are numbered from 0 on, as many as the output has; -100 is a missing label",
        ) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(
            "a batch holds a single sample, of which BatchNorm can take no statistics",
            where="train.batch_size",
            hint=f"use another one than {settings.batch_size}, or arguments: {{dataloader_drop_last: true}}",
        ) from error


@contextlib.contextmanager
def folder_for(output_dir: Path | None, settings: TrainSettings) -> Iterator[Path]:
    """Where the Trainer writes: what was given, or a folder that does not stay."""
    if output_dir is not None:
        yield output_dir
        return
    for key, what in (("save_strategy", "checkpoints are"), ("report_to", "logs are")):
        if settings.arguments.get(key, "no") in ("no", "none", [], ["none"]):
            continue
        raise TrainingError(
            f"{what} asked for, and there is no folder for them",
            where=f"train.arguments.{key}",
            hint="name one: output_dir=…",
        )
    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        yield Path(folder)
