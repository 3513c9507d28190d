"""What a cut network gets back by learning from what it was, against plain fine-tuning on the same samples and steps.

    OMP_NUM_THREADS=1 python tests/benchmarks/distillation.py [--seeds 5] [--output FILE]

A Llama of six blocks learns the docstrings of the standard library (they come with Python; the tokenizer is trained on
them too), loses three blocks, and is trained again on a few of the texts: by the next token alone, by its uncut self
alone (weight 1), and by both. Perplexity is that of texts which neither has seen. The vision pair: the digits network
of ``recipes/digits.pt`` loses half of the blocks of each stage and is trained again on a few samples of each class.
Prints Markdown. A seed draws the samples and their order. The temperature and the weights were not tuned: they are the
defaults of ``distill:``, and the end point of ``weight``.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

import surgeon
from surgeon.recipe.train_settings import TrainSettings

DIGITS = Path(__file__).parents[2] / "recipes" / "digits.pt"
VOCABULARY, LENGTH = 512, 64
MODULES = 60
"""So many modules of the standard library, in the order of their names."""
WAYS: Mapping[str, dict[str, object] | None] = {
    "plain fine-tuning": None,
    "distillation, weight 0.5": {},
    "distillation, weight 1": {"weight": 1.0},
}


def docstrings() -> Iterator[str]:
    """Docstrings of at least 80 characters, by module."""
    folder = Path(ast.__file__).parent
    for path in sorted(folder.glob("*.py"))[:MODULES]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                text = ast.get_docstring(node)
                if text and len(text) >= 80:
                    yield text


def write_language_model(folder: Path) -> dict[str, object]:
    """A Llama with fresh weights and its tokenizer in ``folder``, and texts; returns a source of these."""
    texts = sorted(set(docstrings()), key=hash_of)
    held = len(texts) // 10
    for name, some in (("test", texts[:held]), ("train", texts[held:])):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in some))
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(texts[held:], trainer)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<end>")
    tokenizer.save_pretrained(folder / "fresh")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 6, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=LENGTH, **sizes)
    transformers.LlamaForCausalLM(config).save_pretrained(folder / "fresh")
    paths = {"path": str(folder / "train.jsonl"), "test_path": str(folder / "test.jsonl")}
    return {"source": "corpus", "max_length": LENGTH, **paths}


def hash_of(text: str) -> str:
    """A place that no order of modules decides."""
    return hashlib.sha256(text.encode()).hexdigest()


def language(given: argparse.Namespace, folder: Path) -> tuple[dict[str, list[float]], str]:
    """Perplexities by way, one for each seed, and what was trained."""
    data = write_language_model(folder)
    arguments = {"max_steps": given.steps, "lr_scheduler_type": "cosine"}
    whole = TrainSettings(data=data, batch_size=16, learning_rate=3e-3, arguments=arguments)
    model = surgeon.load(folder / "fresh")
    learnt = perplexity(surgeon.train(model, whole, quiet=True))
    surgeon.save(model, folder / "whole")
    few = {**data, "samples": given.samples}
    accuracies: dict[str, list[float]] = {"the whole network": [learnt] * given.seeds}
    for made in each_seed(partial(healed, folder / "whole", few, given.healing), given):
        for way, value in made.items():
            accuracies.setdefault(way, []).append(value)
    texts = len((folder / "train.jsonl").read_text().splitlines())
    what = f"The whole network: {given.steps} steps of 16 blocks of {LENGTH} tokens, from {texts} texts; the cut one: "
    return accuracies, f"{what}{given.healing} such steps, from {given.samples} of the texts."


def healed(folder: Path, data: dict[str, object], steps: int, seed: int) -> dict[str, float]:
    """Perplexities of the cut language model, by way, for one seed."""
    made: dict[str, float] = {}
    arguments = {"max_steps": steps, "lr_scheduler_type": "cosine"}
    for way, distill in WAYS.items():
        settings = TrainSettings(data=data, batch_size=16, learning_rate=1e-3, arguments=arguments, distill=distill)
        _, report = surgeon.finetune(folder, surgeon.Truncate(keep_blocks=3), settings=settings, seed=seed)
        made.setdefault("after the cut", math.exp(report.before["logits_loss"]))
        made[way] = perplexity(report)
    return made


def each_seed(run: Callable[[int], dict[str, float]], given: argparse.Namespace) -> list[dict[str, float]]:
    """What ``run`` gives for each seed, in as many processes as asked for."""
    with ProcessPoolExecutor(given.processes, multiprocessing.get_context("fork")) as pool:
        return list(pool.map(run, range(given.seeds)))


def perplexity(report: surgeon.TrainReport) -> float:
    """That of the held-out texts."""
    return float(report.tasks["logits"]["all"]["perplexity"])


def vision(given: argparse.Namespace) -> tuple[dict[str, list[float]], str]:
    """Accuracies in percent by way, one for each seed, and what was trained."""
    data = {"source": "digits", "classes": [0, 1, 2, 3, 4], "per_class": given.per_class}
    whole = surgeon.evaluate(DIGITS, data, part="test", arch="torchvision/shufflenet_v2_x0_5")
    accuracies = {"the whole network": [100 * whole.main["accuracy"]] * given.seeds}
    for made in each_seed(partial(taught, data, given.epochs), given):
        for way, value in made.items():
            accuracies.setdefault(way, []).append(value)
    return accuracies, f"{given.per_class} samples of each class, {given.epochs} passes."


def taught(data: dict[str, object], epochs: int, seed: int) -> dict[str, float]:
    """Accuracies of the cut digits network in percent, by way, for one seed."""
    made: dict[str, float] = {}
    for way, distill in WAYS.items():
        settings = TrainSettings(data=data, epochs=epochs, batch_size=16, learning_rate=1e-3, distill=distill)
        _, report = surgeon.finetune(DIGITS, surgeon.Truncate(keep_blocks=0.5), settings=settings, seed=seed)
        made.setdefault("after the cut", 100 * report.before["logits_accuracy"])
        made[way] = 100 * report.after["logits_accuracy"]
    return made


def table(title: str, what: str, unit: str, accuracies: Mapping[str, list[float]], *, less: bool) -> str:
    """Means, deviations and paired differences from plain fine-tuning, as Markdown."""
    lines = [f"### {title}", "", what, "", f"| | {unit} | better than plain fine-tuning by | seeds ahead |"]
    lines.append("| --- | --- | --- | --- |")
    plain = accuracies["plain fine-tuning"]
    for way, values in accuracies.items():
        cells = [f"{statistics.mean(values):.2f} ± {spread(values):.2f}", "", ""]
        if way.startswith("distillation"):
            gains = [(a - b) if less else (b - a) for a, b in zip(plain, values, strict=True)]
            ahead = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
            cells[1:] = [f"{statistics.mean(gains):+.2f} ± {spread(gains):.2f}", ahead]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float]) -> float:
    """The standard deviation over seeds."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=250, help="of the whole language model")
    parser.add_argument("--healing", type=int, default=60, help="steps of the cut language model")
    parser.add_argument("--samples", type=int, default=300, help="texts that the cut language model is trained on")
    parser.add_argument("--epochs", type=int, default=20, help="passes of the cut digits network")
    parser.add_argument("--per-class", type=int, default=10, help="samples of each digit")
    parser.add_argument("--processes", type=int, default=1, help="seeds that run at a time")
    parser.add_argument("--part", choices=("vision", "language"), help="one of the two parts alone")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    parts = []
    if given.part != "language":
        accuracies, what = vision(given)
        parts.append(table("Vision pair: digits", what, "accuracy, %", accuracies, less=False))
    if given.part != "vision":
        with tempfile.TemporaryDirectory() as folder:
            accuracies, what = language(given, Path(folder))
        parts.append(table("Language model: docstrings", what, "perplexity", accuracies, less=True))
    parts.append(f"{time.perf_counter() - started:.0f} s in all, {given.processes} at a time.")
    text = "\n\n".join(parts)
    print(text)
    if given.output is not None:
        given.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
