"""What ``surgeon apply`` imports, and how long each library takes: where the time of a small job goes.

    python tests/benchmarks/imports.py

It edits a tiny Llama and a ResNet-18 in processes of their own with ``-X importtime``, and adds up the time of each
module's own code by library (torch's by subpackage where those are large). What no import takes is the work itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

from rounds import python

LLAMA = """
import sys
from transformers import LlamaConfig, LlamaForCausalLM
sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=2, vocab_size=100)
LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(sys.argv[1])
"""
RESNET = "import sys, torch, torchvision; torch.save(torchvision.models.resnet18().state_dict(), sys.argv[1])"
JOBS = {
    "half of a tiny Llama": (LLAMA, "llama", "truncate, keep_blocks: 0.5"),
    "a new head for a ResNet-18": (RESNET, "resnet18.pth", "replace_head, classes: 10"),
}
LEAST = 0.02
"""Seconds below which a library is one of the others."""


def main() -> None:
    """Run the jobs, print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for title, (make, model, operation) in JOBS.items():
            folder = Path(name)
            subprocess.run(python(make, folder / model), check=True, capture_output=True)
            (folder / "recipe.yaml").write_text(f"operations: [{{op: {operation}}}]")
            runs = [_profile(folder, model) for _ in range(options.rounds)]
            print(f"**{title}**, medians of {options.rounds} rounds\n\n| | s |\n| --- | ---: |")
            seconds = {library: median(run.get(library, 0.0) for run in runs) for library in set().union(*runs)}
            large = {library: spent for library, spent in seconds.items() if spent >= LEAST}
            large["other libraries"] = sum(seconds.values()) - sum(large.values())
            for library, spent in sorted(large.items(), key=lambda item: -item[1]):
                print(f"| {library} | {spent:.2f} |")
            print()


def _profile(folder: Path, model: str) -> dict[str, float]:
    """Seconds by library of one run, and those in which nothing was imported."""
    command = [sys.executable, "-X", "importtime", "-m", "surgeon", "apply", "recipe.yaml", model]
    command += ["-o", "out", "--force", "--quiet"]
    start = time.perf_counter()
    process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    whole = time.perf_counter() - start
    spent: dict[str, float] = defaultdict(float)
    for line in process.stderr.splitlines():
        own_time, _, module = line.removeprefix("import time:").split("|") if line.count("|") == 2 else ("", "", "")
        if own_time.strip().isdigit():
            spent[_library(module.strip())] += int(own_time) / 1e6
    return {**spent, "the work, and the process itself": whole - sum(spent.values())}


def _library(module: str) -> str:
    top, _, inner = module.partition(".")
    inner = inner.partition(".")[0]
    if top == "torch" and inner in {"distributed", "fx", "_prims", "_refs", "onnx", "_C"}:
        return f"torch.{inner}"
    return "sympy, mpmath" if top in {"sympy", "mpmath"} else top


if __name__ == "__main__":
    main()
