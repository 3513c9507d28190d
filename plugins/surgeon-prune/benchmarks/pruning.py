"""Which units and blocks to remove: ranked by magnitude, on data, at random, or simply the first ones kept.

    OMP_NUM_THREADS=1 python benchmarks/pruning.py [--part text | vision] [--seeds 5] [--output FILE]

Text: for each seed, a Llama of six blocks learns docstrings of the standard library (with a tokenizer trained on them),
loses half of its blocks, heads or MLP channels, and is trained again on some of the texts; perplexity of texts that it
has not seen. Vision: the digits network of ``recipes/digits.pt`` loses half of its blocks, or some of the channels
within its blocks, and is trained again on ten samples of each digit; accuracy. A seed draws the whole language model,
the samples, their order, and what is random. Every comparison is at equal depth and width. Nothing was tuned. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from surgeon_prune import PruneBlocks, PruneChannels, PruneHeads, PruneMlp
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import surgeon

DIGITS = Path(__file__).parents[3] / "recipes" / "digits.pt"
VOCABULARY, LENGTH = 512, 64
Way = tuple[str, str, Sequence[surgeon.Operation], bool]
"""What is removed, how it is chosen, the operations, and whether to learn from the whole network too."""
Measures = dict[tuple[str, str], tuple[float, float]]
"""For each way, the metric after pruning and after training."""
WHOLE = ("everything", "")


def docstrings() -> Iterator[str]:
    """Yield docstrings of at least 80 characters, of 60 modules."""
    for path in sorted(Path(ast.__file__).parent.glob("*.py"))[:60]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text and len(text) >= 80:
                    yield text


def write_texts(folder: Path) -> dict[str, Any]:
    """Write texts and a tokenizer, and return the source of the texts."""
    texts = sorted(set(docstrings()), key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    test_count = len(texts) // 10
    for name, some in (("test", texts[:test_count]), ("train", texts[test_count:])):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in some))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<end>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts[test_count:], trainer)
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(
        folder / "fresh"
    )
    paths = {"path": str(folder / "train.jsonl"), "test_path": str(folder / "test.jsonl")}
    return {"source": "corpus", "max_length": LENGTH, **paths}


def text_ways(data: dict[str, Any], seed: int) -> list[Way]:
    """List the ways to remove half of the blocks, heads or channels of a language model."""
    drawn = sorted(random.Random(seed).sample(range(6), 3))
    influence = [PruneBlocks(keep=3, data=data, samples=64)]
    ways: list[Way] = [
        ("blocks, 3 of 6", "first", [surgeon.Truncate(keep_blocks=3)], False),
        ("blocks, 3 of 6", "random", [surgeon.Truncate(keep_blocks=drawn)], False),
        ("blocks, 3 of 6", "influence", influence, False),
        ("blocks, 3 of 6", "influence, distilled", influence, True),
    ]
    for units, kind in (("MLP channels, 80 of 160", PruneMlp), ("heads, 2 of 4", PruneHeads)):
        ways += widths(units, kind, data, seed, samples=64)
    return ways


def vision_ways(data: dict[str, Any], seed: int) -> list[Way]:
    """List the ways to remove half of the blocks or channels of a convolutional network."""
    draw = random.Random(seed)
    drawn = [
        surgeon.Truncate(stack=stack, keep_blocks=[0, *sorted(draw.sample(range(1, count), count // 2 - 1))])
        for stack, count in (("stage2", 4), ("stage3", 8), ("stage4", 4))
    ]
    influence = [PruneBlocks(keep=0.5, data=data, samples=50)]
    units = "blocks, half of each stage"
    ways: list[Way] = [
        (units, "first", [surgeon.Truncate(keep_blocks=0.5)], False),
        (units, "random", drawn, False),
        (units, "influence", influence, False),
        (units, "influence, distilled", influence, True),
    ]
    for keep in (0.5, 0.75):
        ways += widths(f"channels within blocks, {keep:.0%}", PruneChannels, data, seed, samples=50, keep=keep)
    return ways


def widths(units: str, kind: Any, data: dict[str, Any], seed: int, *, samples: int, keep: float = 0.5) -> list[Way]:
    """List the ways to choose units."""
    active = [kind(keep=keep, by="activations", data=data, samples=samples)]
    plain: list[Way] = [
        (units, by, [kind(keep=keep, by=by, **({"seed": seed} if by == "random" else {}))], False)
        for by in ("first", "random", "l2")
    ]
    return [*plain, (units, "activations", active, False), (units, "activations, distilled", active, True)]


def measured(
    source: Path, ways: Sequence[Way], settings: Callable[[bool], surgeon.TrainSettings], metric: str, seed: int
) -> Measures:
    """Return the metric after pruning and after training, for each way."""
    results: Measures = {}
    for units, by, operations, distilled in ways:
        _, report = surgeon.finetune(source, operations, settings=settings(distilled), seed=seed, quiet=True)
        results[units, by] = (report.before[metric], report.after[metric])
    return results


def text_of(options: argparse.Namespace, seed: int) -> Measures:
    """Measure on text, for one seed; the perplexity of the whole network is among the results."""
    arguments = {"lr_scheduler_type": "cosine"}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = write_texts(folder)
        few = {**data, "samples": options.samples}

        def settings(distilled: bool) -> surgeon.TrainSettings:
            steps = {**arguments, "max_steps": options.healing}
            distill = {"distill": {}} if distilled else {}
            return surgeon.TrainSettings(data=few, batch_size=16, learning_rate=1e-3, arguments=steps, **distill)

        whole = options.cache / f"whole-{seed}" if options.cache is not None else folder / "whole"
        if not whole.is_dir():
            train_whole(options, folder, data, whole, seed)
        ways = [way for way in text_ways(few, seed) if options.only in way[0]]
        losses = measured(whole, ways, settings, "logits_loss", seed)
        report = surgeon.evaluate(whole, few, part="test")
        losses[WHOLE] = (math.log(report.main["perplexity"]),) * 2
    return {key: (math.exp(before), math.exp(after)) for key, (before, after) in losses.items()}


def train_whole(arguments: argparse.Namespace, folder: Path, data: dict[str, Any], whole: Path, seed: int) -> None:
    """Train a language model and save it as ``whole``."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 6, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=LENGTH, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "fresh")
    model = surgeon.load(folder / "fresh")
    steps = {"lr_scheduler_type": "cosine", "max_steps": arguments.steps}
    train = surgeon.TrainSettings(data=data, batch_size=16, learning_rate=3e-3, arguments=steps)
    surgeon.train(model, train, seed=seed, quiet=True)
    surgeon.save(model, whole)


def vision_of(arguments: argparse.Namespace, seed: int) -> Measures:
    """Measure on pictures, for one seed."""
    data = {"source": "digits", "classes": [0, 1, 2, 3, 4], "per_class": arguments.per_class, "size": 64, "channels": 3}

    def settings(distilled: bool) -> surgeon.TrainSettings:
        distill = {"distill": {}} if distilled else {}
        return surgeon.TrainSettings(data=data, epochs=arguments.epochs, batch_size=16, learning_rate=1e-3, **distill)

    ways = [way for way in vision_ways(data, seed) if arguments.only in way[0]]
    results = measured(DIGITS, ways, settings, "logits_accuracy", seed)
    whole = surgeon.evaluate(DIGITS, data, part="test", arch="torchvision/shufflenet_v2_x0_5").main["accuracy"]
    return {key: (100 * before, 100 * after) for key, (before, after) in {**results, WHOLE: (whole, whole)}.items()}


def text(arguments: argparse.Namespace) -> str:
    """Measure on text."""
    caption = (
        f"Perplexity, less is better. The network learnt for {arguments.steps} steps of 16 blocks of {LENGTH} tokens, "
        f"the pruned ones for {arguments.healing} such steps on {arguments.samples} of the texts."
    )
    return table("Text: a Llama on docstrings", caption, each_seed(text_of, arguments))


def vision(arguments: argparse.Namespace) -> str:
    """Measure on pictures."""
    caption = (
        f"Accuracy in percent, more is better. The pruned networks are trained for {arguments.epochs} passes over "
        f"{arguments.per_class} samples of each class."
    )
    return table("Vision: a ShuffleNet on digits", caption, each_seed(vision_of, arguments))


def each_seed(run: Callable[[argparse.Namespace, int], Measures], arguments: argparse.Namespace) -> list[Measures]:
    """Run every seed, in as many processes as asked for."""
    with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("fork")) as pool:
        return list(pool.map(partial(_remembered, run, arguments), range(arguments.seeds)))


def _remembered(
    run: Callable[[argparse.Namespace, int], Measures], arguments: argparse.Namespace, seed: int
) -> Measures:
    """Measure one seed, or take what was measured before from the folder ``--cache``."""
    file = arguments.cache / f"{run.__name__}-{seed}.json" if arguments.cache is not None else None
    if file is not None and file.is_file():
        return {(units, by): (before, after) for units, by, before, after in json.loads(file.read_text())}
    results = run(arguments, seed)
    if file is not None:
        file.write_text(json.dumps([[*key, *values] for key, values in results.items()]))
    return results


def table(title: str, caption: str, results: Sequence[Measures]) -> str:
    """Format means and standard deviations over seeds as Markdown."""
    lines = [
        f"### {title}",
        "",
        caption,
        "",
        "| kept | chosen by | after pruning | after training |",
        "| --- " * 4 + "|",
    ]
    for key in [WHOLE, *(key for key in results[0] if key != WHOLE)]:
        cells = [_mean([result[key][column] for result in results]) for column in (0, 1)]
        lines.append(f"| {' | '.join([*key, *cells])} |")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0:.1f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part", choices=("text", "vision"), help="one of the two parts alone")
    parser.add_argument("--only", default="", help="only what has this in its first column")
    parser.add_argument("--steps", type=int, default=250, help="of the whole language model")
    parser.add_argument("--healing", type=int, default=30, help="steps of the pruned language model")
    parser.add_argument("--samples", type=int, default=300, help="texts that the pruned language model is trained on")
    parser.add_argument("--epochs", type=int, default=5, help="passes of the pruned digits network")
    parser.add_argument("--per-class", type=int, default=10, help="samples of each digit")
    parser.add_argument("--processes", type=int, default=1, help="seeds that run at a time")
    parser.add_argument("--cache", type=Path, help="a folder that keeps what was trained and measured, to go on from")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    started = time.perf_counter()
    parts = [part(arguments) for name, part in (("text", text), ("vision", vision)) if arguments.part in (None, name)]
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime + resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    parts.append(f"{spent:.0f} s of one core, {time.perf_counter() - started:.0f} s in all.")
    print("\n\n".join(parts))
    if arguments.output is not None:
        arguments.output.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
