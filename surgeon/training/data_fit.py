"""Check that a network and its data fit, and explain errors of training steps."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor, nn

from surgeon.errors import TrainingError
from surgeon.families.videos import frames_of, slides_over_time
from surgeon.interfaces.splits import Splits
from surgeon.recipe.train_settings import TrainSettings
from surgeon.training.calls import Batch, Call
from surgeon.training.objectives import call_of


def first_outputs(model: nn.Module, splits: Splits) -> tuple[dict[str, Tensor], Batch]:
    """Run ``model`` in eval mode on two training samples; return its outputs by name, and the batch.

    Raises:
        TrainingError: The model does not accept them.
    """
    first = splits.collate([splits.train[i] for i in range(min(2, len(splits.train)))])  # type: ignore[arg-type]
    device = next(model.parameters()).device
    batch = {name: column.to(device) for name, column in first.items()}
    model.eval()
    outputs = outputs_of(model, call_of(model, splits.inputs), batch)
    if not outputs:
        raise TrainingError(
            f"{type(model).__name__} returns no tensor by name, so no objective can train it",
            where="train",
            hint="a detector is trained on the source coco; others must return a tensor, or tensors by name",
        )
    return outputs, batch


def outputs_of(model: nn.Module, call: Call, batch: Batch) -> dict[str, Tensor]:
    """Run ``model`` on a batch; return its outputs by name.

    Raises:
        TrainingError: The model does not accept it.
    """
    inputs = {name: batch[name] for name in call.inputs}
    _refuse_pictures_as_videos(model, inputs)
    try:
        return call(model, batch)
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        raise _misfit(model, inputs, error) from error


def _refuse_pictures_as_videos(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Refuse pictures for a network of videos: some interpolate what they know of frames, and would take them."""
    pixels = inputs.get("pixel_values")
    if pixels is None:
        return
    frames = frames_of(model)
    alone = pixels.ndim == 5 and pixels.shape[1] == 1  # some processors make a video of a picture
    if not (pixels.ndim == 4 or alone) or frames == 1 or (frames is None and not slides_over_time(model)):
        return
    many = "their frames" if frames is None else f"{frames} frames"
    raise TrainingError(
        f"{type(model).__name__} takes videos{'' if frames is None else f' of {frames} frames'}, and surgeon reads no "
        "videos: each picture would be one frame",
        where="train.data",
        hint=f"give datasets from Python with {many} in a sample: surgeon.finetune(…, data=surgeon.Splits(…))",
    )


def _misfit(model: nn.Module, inputs: Mapping[str, Tensor], error: Exception) -> TrainingError:
    """Return the error for a model that does not accept the data."""
    shapes = ", ".join(f"{name} {tuple(column.shape)}" for name, column in inputs.items())
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    channels = next((m.in_channels for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    pixels = inputs.get("pixel_values")
    hint = _advice(model, with_pictures=pixels is not None)
    if pixels is not None and pixels.ndim == 4 and channels not in (None, pixels.shape[1]):
        reason = f"its first convolution takes {channels} channels but the data have {pixels.shape[1]}"
        hint = f"of the source digits: channels: {channels}; of others: pixels: {{channels: {channels}}}"
    return TrainingError(f"the model does not accept a batch of {shapes}: {reason}", where="train.data", hint=hint)


def _advice(model: nn.Module, *, with_pictures: bool) -> str:
    """Return the hint for data that a model does not accept."""
    dtypes = sorted(
        {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()} - {"float32"}
    )
    if dtypes:
        kinds = ", ".join(dtypes)
        return f"its weights are {kinds} and data are float32: convert it first, with {{op: convert, dtype: float32}}"
    if with_pictures:
        return (
            "pictures need the size that it was made for; of the source digits: size: N; of others: pixels: {size: N}"
        )
    return (
        "the columns that are fed to it must have the shapes that its forward takes; surgeon inspect shows its layers"
    )


@contextlib.contextmanager
def step_errors_explained(settings: TrainSettings) -> Iterator[None]:
    """Turn known errors of a training step into errors that say what to do."""
    try:
        yield
    except IndexError as error:  # from cross-entropy on a CPU, for data whose labels were not checked
        if "out of bounds" not in str(error):
            raise
        raise TrainingError(
            f"a label is out of range: {str(error).strip().rstrip('.')}",
            where="train.data",
            hint="classes are numbered from 0, as many as the output has; -100 marks a missing label",
        ) from error
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise TrainingError(
            "a batch has a single sample, so BatchNorm cannot compute statistics",
            where="train.batch_size",
            hint=f"use another batch_size than {settings.batch_size}, or arguments: {{dataloader_drop_last: true}}",
        ) from error


@contextlib.contextmanager
def folder_for(output_dir: Path | None, settings: TrainSettings) -> Iterator[Path]:
    """Yield the Trainer's folder: the given one, or a temporary one."""
    if output_dir is not None:
        yield output_dir
        return
    for key, subject in (("save_strategy", "checkpoints are"), ("report_to", "logs are")):
        if settings.arguments.get(key, "no") in ("no", "none", [], ["none"]):
            continue
        raise TrainingError(
            f"{subject} requested, but there is no folder for them",
            where=f"train.arguments.{key}",
            hint="give one: output_dir=…",
        )
    with tempfile.TemporaryDirectory(prefix="surgeon-") as folder:
        yield Path(folder)
