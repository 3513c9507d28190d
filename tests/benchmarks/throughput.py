"""Samples a second in ``surgeon.train`` against a training loop written by hand: same network, data, optimizer.

    python tests/benchmarks/throughput.py                # ResNet-18 and a small BERT on the CPU: about 3 minutes
    python tests/benchmarks/throughput.py --device cuda --networks resnet50 bert --batch 64 --precision bf16 \\
        --channels-last --compile

The hand-written loop does what the Trainer does by default: a shuffled loader, AdamW, a linear schedule, gradients
clipped at 1, and the loss kept on the device until the end of the epoch. Both run in turn, ``--rounds`` times, in one
process; the first ``--warmup`` steps do not count. On the CPU the clock is this process's processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, get_linear_schedule_with_warmup

import surgeon
from surgeon.data.columns import Columns
from surgeon.interfaces.splits import Splits
from surgeon.recipe.train_settings import TrainSettings

CLASSES = 10
RATE = 1e-4


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--networks", nargs="+", default=["resnet18", "small-bert"], help="torchvision's, bert, small-bert"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="of the images")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--warmup", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--output", type=Path, help="write the table there too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    flags = [options.precision, *(["channels last"] if options.channels_last else [])]
    flags += ["compiled"] if options.compile else []
    lines = [
        f"{options.device}, {', '.join(flags)}, batch {options.batch}, {options.steps} steps, {options.rounds} rounds",
        "",
        "| | samples a second, by hand | surgeon.train | surgeon.train / by hand (min – max) |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name in options.networks:
        lines.append(_row(name, options))
        print(lines[-1], flush=True)
    text = "\n".join(lines)
    print("\n" + text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


def _row(name: str, options: argparse.Namespace) -> str:
    network, splits = _job(name, options)
    hand, ours = [], []
    for number in range(options.rounds):
        order = (by_hand, by_surgeon) if number % 2 == 0 else (by_surgeon, by_hand)
        for loop in order:
            rate = loop(deepcopy(network), splits, options)
            (hand if loop is by_hand else ours).append(rate)
    ratios = [one / other for one, other in zip(ours, hand, strict=True)]
    spread = f"{median(ratios):.3f} ({min(ratios):.3f} – {max(ratios):.3f})"
    return f"| {name} | {median(hand):.1f} | {median(ours):.1f} | {spread} |"


def _job(name: str, options: argparse.Namespace) -> tuple[nn.Module, Splits]:
    torch.manual_seed(0)
    samples = options.batch * options.steps
    labels = torch.randint(CLASSES, (samples,))
    if name in ("bert", "small-bert"):
        small = {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
        config = BertConfig(num_labels=CLASSES, **(small if name == "small-bert" else {}))
        ids = torch.randint(1, config.vocab_size, (samples, 64))
        data = Columns(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
        return BertForSequenceClassification(config), _splits(data, ("input_ids", "attention_mask"))
    network = getattr(torchvision.models, name)(num_classes=CLASSES)
    if options.channels_last:
        network = network.to(memory_format=torch.channels_last)
    images = torch.randn(samples, 3, options.size, options.size)
    return network, _splits(Columns(pixel_values=images, labels=labels), ("pixel_values",))


def _splits(data: Columns, inputs: tuple[str, ...]) -> Splits:
    few = Columns(**{name: column[:2] for name, column in data.columns.items()})
    return Splits(data, few, inputs=inputs, classes={"labels": CLASSES})


class Clock:
    """Called with the number of each step that is done; takes the time after the warm-up and after the last."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.cuda = options.device == "cuda"
        self.clock: Callable[[], float] = time.perf_counter if self.cuda else time.process_time
        self.steps = (options.warmup, options.steps)
        self.times: dict[int, float] = {}

    def __call__(self, step: int, steps: int = 0, numbers: dict[str, float] | None = None) -> None:
        if step in self.steps and step not in self.times:
            if self.cuda:
                torch.cuda.synchronize()
            self.times[step] = self.clock()

    def rate(self, batch: int) -> float:
        """Samples a second."""
        first, last = self.steps
        return (last - first) * batch / (self.times[last] - self.times[first])


def by_surgeon(network: nn.Module, splits: Splits, options: argparse.Namespace) -> float:
    """Samples a second in surgeon.train."""
    clock = Clock(options)
    arguments: dict[str, Any] = {"bf16": options.precision == "bf16", "torch_compile": options.compile}
    settings = TrainSettings(epochs=1, batch_size=options.batch, learning_rate=RATE, arguments=arguments)
    surgeon.train(network, settings, data=splits, quiet=True, progress=clock)
    return clock.rate(options.batch)


def by_hand(network: nn.Module, splits: Splits, options: argparse.Namespace) -> float:
    """Samples a second in a loop as one writes it."""
    clock = Clock(options)
    device = torch.device(options.device)
    network = network.to(device).train()
    run: Any = torch.compile(network) if options.compile else network
    loader = DataLoader(splits.train, options.batch, shuffle=True, pin_memory=options.device == "cuda")
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, options.steps)
    seen = torch.zeros((), device=device)
    for step, batch in enumerate(loader, start=1):
        batch = {name: column.to(device, non_blocking=True) for name, column in batch.items()}
        labels = batch.pop("labels")
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            output = run(batch["pixel_values"]) if "pixel_values" in batch else run(**batch).logits
            loss = F.cross_entropy(output, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        seen += loss.detach()
        clock(step)
    seen.item()
    return clock.rate(options.batch)


if __name__ == "__main__":
    main()
