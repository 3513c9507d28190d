"""What each entry of ``surgeon/cli/startup/lazy_imports.py`` saves: whole ``surgeon plan`` processes, interleaved.

    python tests/benchmarks/lazy_imports.py                  # CPU seconds of plan with and without each entry
    python tests/benchmarks/lazy_imports.py --importtime     # what -X importtime counts below each module

It plans a frozen SqueezeNet and half of a tiny Llama. The CPU time of a process depends little
on what else the machine does; an entry stays only where it saves 0.2 s of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from rounds import Contender, python, run_rounds

SQUEEZENET = """
import sys, torch, torchvision
torch.save(torchvision.models.squeezenet1_1(num_classes=5).state_dict(), sys.argv[1])
"""
LLAMA = """
import sys
from transformers import LlamaConfig, LlamaForCausalLM
sizes = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=2, vocab_size=100)
LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(sys.argv[1])
"""
JOBS = {
    "torchvision SqueezeNet": (SQUEEZENET, "squeezenet.pth", "freeze, all_but: head"),
    "transformers Llama": (LLAMA, "llama", "truncate, keep_blocks: 0.5"),
}
CHOICES = {
    "nothing put off": (),
    "torch._dynamo": ("torch._dynamo",),
    "torch._dynamo, torch._dynamo.utils": ("torch._dynamo", "torch._dynamo.utils"),
    "scipy.optimize": ("scipy.optimize",),
    "all three": ("torch._dynamo", "torch._dynamo.utils", "scipy.optimize"),
}
RUN = """
import runpy, sys
from surgeon.cli.startup import lazy_imports
chosen = sys.argv[1].split()
left_out = set(lazy_imports.DEFERRED) - set(chosen)
lazy_imports.DEFERRED = {name: entry for name, entry in lazy_imports.DEFERRED.items() if name in chosen}
lazy_imports.ALONE -= left_out
sys.argv[:2] = ["surgeon"]
runpy.run_module("surgeon", run_name="__main__")
"""


def main() -> None:
    """Run the jobs, print a table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--importtime", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        for title, (make, model, operation) in JOBS.items():
            path = Path(name, model)
            subprocess.run(python(make, path), check=True, capture_output=True)
            recipe = path.with_suffix(".yaml")
            recipe.write_text(f"operations: [{{op: {operation}}}]", encoding="utf-8")
            arguments = ["plan", str(recipe), str(path)]
            print(f"**{title}**\n")
            if options.importtime:
                _print_import_times(arguments)
            else:
                _print_processor_times(arguments, options.rounds)


def _print_processor_times(arguments: list[str], rounds: int) -> None:
    contenders = [Contender(choice, python(RUN, " ".join(modules), *arguments)) for choice, modules in CHOICES.items()]
    run_rounds(contenders, rounds, cold=False, tell=lambda line: None)
    whole = median(contenders[0].processor)
    print("| put off | median CPU s | min – max | saved |\n| --- | ---: | ---: | ---: |")
    for contender in contenders:
        middle = median(contender.processor)
        spread = f"{min(contender.processor):.2f} – {max(contender.processor):.2f}"
        print(f"| {contender.name} | {middle:.2f} | {spread} | {whole - middle:.2f} |")
    print(flush=True)


def _print_import_times(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *python(RUN, "", *arguments)[1:]]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    print("| module | s, with all that it imports first |\n| --- | ---: |")
    for line in process.stderr.splitlines():
        _, cumulative, module = line.split("|") if line.count("|") == 2 else ("", "", "")
        if module.strip() in CHOICES["all three"]:
            print(f"| {module.strip()} | {int(cumulative) / 1e6:.2f} |")
    print(flush=True)


if __name__ == "__main__":
    main()
