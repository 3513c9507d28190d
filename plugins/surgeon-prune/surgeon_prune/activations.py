"""Run data through a network with its values, and measure what layers read and how much blocks change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from surgeon import OperationError
from surgeon.nn.features import main_tensor

if TYPE_CHECKING:
    from surgeon import Source
    from surgeon.surgery.context import Surgery

BATCH = 16

Batch = Mapping[str, torch.Tensor]


def batches(surgery: Surgery, model: nn.Module, source: Source, samples: int) -> Iterator[tuple[Batch, Any]]:
    """Yield batches of training samples, with a function that runs a network on one.

    The samples are drawn under a fixed seed and prepared as the network's checkpoint says.

    Raises:
        TrainingError: The data cannot be used.
    """
    from surgeon import TrainSettings
    from surgeon.data.network import Network
    from surgeon.training.calls import Call
    from surgeon.training.class_names import positions, vocabulary
    from surgeon.training.language import language_of
    from surgeon.training.load_splits import load_splits, prepared_as

    network = Network(positions=positions(model), vocabulary=vocabulary(model), language=language_of(model))
    splits = load_splits(TrainSettings(data=source), 0, prepared_as(network, surgery.record, [source]))
    call = Call.of(model, splits.inputs)
    order = torch.randperm(len(splits.train), generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    rows: list[int] = order[:samples].tolist()
    for start in range(0, len(rows), BATCH):
        yield splits.collate([splits.train[row] for row in rows[start : start + BATCH]]), call


def read_energies(surgery: Surgery, source: Source, samples: int, sites: Mapping[str, int]) -> dict[str, torch.Tensor]:
    """Measure the mean square of each entry that layers read.

    Args:
        surgery: Fills a copy of the network.
        source: The data.
        samples: How many samples to run.
        sites: The layers, with the dimension of the entries in what they read.

    Returns:
        For each site, a tensor ``(entries,)``.
    """
    sums: dict[str, torch.Tensor] = {}
    counts: dict[str, int] = dict.fromkeys(sites, 0)
    mask: list[torch.Tensor | None] = [None]
    model = surgery.filled()

    def watch(site: str, axis: int) -> Any:
        def read(module: nn.Module, args: tuple[Any, ...]) -> None:
            values = _tokens(args[0].detach().movedim(axis, -1), mask[0]).flatten(0, -2)
            total = values.double().square().sum(0)
            sums[site] = sums[site] + total if site in sums else total
            counts[site] += len(values)

        return read

    with ExitStack() as stack:
        for site, axis in sites.items():
            handle = model.get_submodule(site).register_forward_pre_hook(watch(site, axis))
            stack.callback(handle.remove)
        _run_all(surgery, model, source, samples, mask)
    if missing := [site for site in sites if site not in sums]:
        raise OperationError(f"{missing[0]} did not run on the data", hint="leave it out with at:")
    return {site: (total / counts[site]).float() for site, total in sums.items()}


def influences(surgery: Surgery, source: Source, samples: int, blocks: Mapping[str, int]) -> dict[str, float]:
    """Measure the influence of blocks: 1 - the mean cosine of their hidden states before and after.

    Source: Block Influence of Men et al. 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than You
    Expect". The mean is taken over samples and positions; padding does not count.

    Args:
        surgery: Fills a copy of the network.
        source: The data.
        samples: How many samples to run.
        blocks: The blocks, with the dimension of the channels.

    Returns:
        The influence of each block that keeps the shape of its input.
    """
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    mask: list[torch.Tensor | None] = [None]
    model = surgery.filled()

    def watch(site: str, axis: int) -> Any:
        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)), None)
            after = main_tensor(output)
            if before is None or after is None or before.shape != after.shape:
                return
            one, two = (_tokens(tensor.detach().float().movedim(axis, -1), mask[0]) for tensor in (before, after))
            cosines = torch.nn.functional.cosine_similarity(one, two, dim=-1)
            sums[site] = sums.get(site, 0.0) + float(cosines.double().sum())
            counts[site] = counts.get(site, 0) + cosines.numel()

        return read

    with ExitStack() as stack:
        for site, axis in blocks.items():
            handle = model.get_submodule(site).register_forward_hook(watch(site, axis), with_kwargs=True)
            stack.callback(handle.remove)
        _run_all(surgery, model, source, samples, mask)
    return {site: 1 - total / counts[site] for site, total in sums.items()}


def _run_all(surgery: Surgery, model: nn.Module, source: Source, samples: int, mask: list[torch.Tensor | None]) -> None:
    ran = False
    with torch.no_grad():
        for batch, call in batches(surgery, model, source, samples):
            mask[0] = batch.get("attention_mask")
            call(model, batch)
            ran = True
    if not ran:
        raise OperationError("data: there are no training samples", hint="give data with samples")


def _tokens(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Leave out padding: ``(batch, tokens, channels)`` becomes ``(1, kept, channels)``."""
    if mask is None or values.dim() != 3 or mask.shape != values.shape[:2]:
        return values
    return values[mask.bool()][None]


def weight_energy(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Sum the squares of a weight over all axes but one."""
    return weight.float().square().movedim(axis, 0).flatten(1).sum(1)
