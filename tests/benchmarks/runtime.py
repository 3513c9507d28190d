"""How fast edited networks run, against the same networks written by hand in plain PyTorch (``by_hand.py``).

    python tests/benchmarks/runtime.py                   # ResNet-50 and BERT-base, eager: about 4 minutes on 2 cores
    python tests/benchmarks/runtime.py --small           # ResNet-18 and a BERT of 4 layers: half a minute
    python tests/benchmarks/runtime.py --compile         # both sides compiled (takes a C++ compiler)
    python tests/benchmarks/runtime.py --device cuda --batch 32 --output runtime.md

Both sides hold the same weights and their outputs are compared first. Then they run in turn, ``--rounds`` times; the
ratio is the median of the rounds' ratios, and the quartiles stand beside it. On a CPU the clock is the processor time
of this process, which other work on the machine changes least. ``saved`` is what one forward in training keeps for
the backward: a frozen part should keep nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import by_hand
import torch
import torchvision
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

import surgeon
from surgeon import Freeze, GradientReversal, Multitask, Progressive, ReplaceHead, Truncate

Batch = dict[str, torch.Tensor]


@dataclass
class Case:
    """An edited network and the same by hand; ``same`` says whether it is the same computation, or a bound."""

    name: str
    ours: nn.Module
    hand: nn.Module
    same: bool = True


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="smaller networks")
    parser.add_argument("--only", nargs="+", choices=("resnet", "bert"), default=("resnet", "bert"))
    parser.add_argument("--case", help="only the cases whose names hold this")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--output", type=Path, help="write the table there too")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    lines = [
        f"{'compiled' if options.compile else 'eager'}, {options.device}, batch {options.batch}, "
        f"{options.rounds} rounds, {options.threads} threads",
        "",
        "| | forward ms, by hand | ratio | forward and backward ms, by hand | ratio | saved MB, by hand | ours |",
        "| --- |" + " ---: |" * 6,
    ]
    for kind in options.only:
        for case, batch in (resnets if kind == "resnet" else berts)(options):
            if options.case is None or options.case in case.name:
                lines.append(_row(case, batch, options))
                print(lines[-1], flush=True)
    text = "\n".join(lines)
    print("\n" + text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


def resnets(options: argparse.Namespace) -> Iterator[tuple[Case, Batch]]:
    """The cases on a ResNet."""
    name = "resnet18" if options.small else "resnet50"
    net = getattr(torchvision.models, name)(num_classes=100)
    batch = {"x": torch.randn(options.batch, 3, 112, 112)}

    def edited(*operations: Any) -> nn.Module:
        return surgeon.apply(net, list(operations))

    ours = edited(Truncate(after="layer3"))
    yield Case(f"{name}, truncated after layer3", ours, by_hand.ResNet(ours, last=3)), batch
    ours = edited(ReplaceHead(classes=10))
    yield Case(f"{name}, re-headed", ours, by_hand.ResNet(ours)), batch
    ours = edited(Freeze(up_to="layer2"))
    yield Case(f"{name}, frozen up to layer2", ours, by_hand.FrozenResNet(ours, 2)), batch
    ours = edited(GradientReversal(at="layer3"))
    yield Case(f"{name}, domain branch on layer3", ours, by_hand.ResNet(ours, 4, {"domain": 3}, reverse=True)), batch
    ours = edited(Multitask(tasks={"a": {"classes": 5}, "b": {"classes": 3, "at": "layer3"}}))
    yield Case(f"{name}, three tasks", ours, by_hand.ResNet(ours, 4, {"a": 4, "b": 3})), batch
    ours = edited(Progressive(task="new", classes=10))
    yield Case(f"{name}, two progressive columns", ours, by_hand.ProgressiveResNet(ours)), batch
    alone = by_hand.ProgressiveResNet(ours, laterals=False)
    yield Case(f"{name}, the same against its columns without laterals", ours, alone, same=False), batch


def berts(options: argparse.Namespace) -> Iterator[tuple[Case, Batch]]:
    """The cases on a BERT."""
    small = {"num_hidden_layers": 4, "hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
    config = BertConfig(
        hidden_dropout_prob=0, attention_probs_dropout_prob=0, num_labels=5, **(small if options.small else {})
    )
    middle = config.num_hidden_layers // 2 - 1
    at = f"bert.encoder.layer.{middle}"
    net = BertForSequenceClassification(config)
    name = "small BERT" if options.small else "BERT-base"
    ids = torch.randint(1, config.vocab_size, (options.batch, 64))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def edited(*operations: Any) -> nn.Module:
        return surgeon.apply(net, list(operations))

    ours = edited(Truncate(after=at))
    yield Case(f"{name}, truncated after layer {middle}", ours, by_hand.TruncatedBert(ours)), batch
    ours = edited(GradientReversal(at=at))
    hand = by_hand.BranchedBert(ours, {"domain": middle}, reverse=True)
    yield Case(f"{name}, domain branch on layer {middle}", ours, hand), batch
    ours = edited(Multitask(tasks={"a": {"classes": 5}, "b": {"classes": 3, "at": at}}))
    yield Case(f"{name}, three tasks", ours, by_hand.BranchedBert(ours, {"a": None, "b": middle})), batch
    ours = edited(Progressive(task="new", classes=10))
    yield Case(f"{name}, two progressive columns", ours, by_hand.ProgressiveBert(ours)), batch
    alone = by_hand.ProgressiveBert(ours, laterals=False)
    yield Case(f"{name}, the same against its columns without laterals", ours, alone, same=False), batch


def _row(case: Case, batch: Batch, options: argparse.Namespace) -> str:
    nets = [net.to(options.device) for net in (case.hand, case.ours)]
    batch = {key: value.to(options.device) for key, value in batch.items()}
    _check(case, nets, batch)
    saved = [_saved(net.train(), batch) for net in nets]
    if options.compile:
        torch._dynamo.reset()  # a function is compiled a few times only, and the cases share theirs
        nets = [torch.compile(net) for net in nets]  # type: ignore[misc]
    forward = _compare([_forward(net.eval(), batch) for net in nets], options)
    both = _compare([_forward_backward(net.train(), batch) for net in nets], options)
    cells = [*forward, *both, *(f"{bytes_ / 1e6:.1f}" for bytes_ in saved)]
    return f"| {case.name} | " + " | ".join(cells) + " |"


def _call(net: nn.Module, batch: Batch) -> list[torch.Tensor]:
    output = net(batch["x"]) if "x" in batch else net(**batch)
    return [output] if isinstance(output, torch.Tensor) else list(output.values())


def _check(case: Case, nets: list[nn.Module], batch: Batch) -> None:
    if not case.same:
        return
    with torch.no_grad():
        hand, ours = (_call(net.eval(), batch) for net in nets)
    for one, other in zip(hand, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def _forward(net: nn.Module, batch: Batch) -> Callable[[], None]:
    def run() -> None:
        net.eval()
        with torch.no_grad():
            _call(net, batch)

    return run


def _forward_backward(net: nn.Module, batch: Batch) -> Callable[[], None]:
    def run() -> None:
        net.train()
        torch.stack([output.square().mean() for output in _call(net, batch)]).sum().backward()
        net.zero_grad()

    return run


def _compare(runs: list[Callable[[], None]], options: argparse.Namespace) -> tuple[str, str]:
    """Milliseconds of the first, and how many times as long the second takes, with quartiles."""
    cuda = options.device.startswith("cuda")
    clock = time.perf_counter if cuda else time.process_time

    def timed(run: Callable[[], None]) -> float:
        if cuda:
            torch.cuda.synchronize()
        start = clock()
        run()
        if cuda:
            torch.cuda.synchronize()
        return clock() - start

    for run in runs * 2:
        run()
    hand, ratios = [], []
    for number in range(options.rounds):
        order = (0, 1) if number % 2 == 0 else (1, 0)
        seconds = {index: timed(runs[index]) for index in order}
        hand.append(seconds[0])
        ratios.append(seconds[1] / seconds[0])
    low, middle, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{median(hand) * 1e3:.1f}", f"{middle:.3f} ({low:.2f}–{high:.2f})"


def _saved(net: nn.Module, batch: Batch) -> int:
    """The bytes of all tensors but the weights that a forward keeps for the backward."""
    kept: dict[int, int] = {}
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*net.parameters(), *net.buffers()]}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = _call(net, batch)
    del outputs
    return sum(kept.values())


if __name__ == "__main__":
    main()
