"""``surgeon apply`` and ``surgeon.load`` against what people would use instead, whole processes.

    python tests/benchmarks/apply.py                      # 1.5 GB, in a temporary folder
    python tests/benchmarks/apply.py --gigabytes 6 --rounds 4 --folder /data/bench
    python tests/benchmarks/apply.py --cold --only llama
    python tests/benchmarks/apply.py --series 1.5 6 18    # how memory grows with the checkpoint (not at all)

It makes its inputs (synthetic weights of real classes), runs everybody in interleaved rounds and prints Markdown
tables: medians, spread, ratios and peak memory. Every contender's result is on the disk when it ends: cp is
followed by sync, the Python programs by fsync. mergekit takes part where ``mergekit-yaml`` is on the PATH.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from statistics import median

from rounds import Contender, files_of, python, run_rounds, table

JOBS = ("llama", "mixtral", "resnet152", "vit_l_16", "load")
DECODERS = {"llama": "Llama", "mixtral": "Mixtral"}
HEADS = {"resnet152": ("fc", 2048), "vit_l_16": ("heads.head", 1024)}
CP, OURS, LOAD = "cp", "surgeon apply", "surgeon.load"
SURGEON = [sys.executable, "-m", "surgeon"]

FSYNC = """
import os, sys
from pathlib import Path
def fsync(path):
    for file in [path] if path.is_file() else path.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
"""
TRANSFORMERS = (
    FSYNC
    + """
from transformers import AutoConfig, AutoModelForCausalLM
source, output = sys.argv[1:]
config = AutoConfig.from_pretrained(source)
config.num_hidden_layers //= 2
AutoModelForCausalLM.from_pretrained(source, config=config, dtype="auto").save_pretrained(output)
fsync(Path(output))
"""
)
PLAIN_TORCH = (
    FSYNC
    + """
import torch
source, output, head, width = sys.argv[1:]
state = torch.load(source, weights_only=True)
new = torch.nn.Linear(int(width), 10)
state[f"{head}.weight"], state[f"{head}.bias"] = new.weight.detach(), new.bias.detach()
torch.save(state, output)
fsync(Path(output))
"""
)
TORCHVISION = (
    FSYNC
    + """
import torch, torchvision
source, output, head, width, name = sys.argv[1:]
model = getattr(torchvision.models, name)()
model.load_state_dict(torch.load(source, weights_only=True))
model.set_submodule(head, torch.nn.Linear(int(width), 10))
torch.save(model.state_dict(), output)
fsync(Path(output))
"""
)
LOAD_OURS = "import sys, surgeon; model = surgeon.load(sys.argv[1])"
LOAD_THEIRS = "import sys; from transformers import AutoModelForCausalLM as A; model = A.from_pretrained(sys.argv[1])"
USE = "; model(__import__('torch').tensor([[1, 2, 3]]))"


def main() -> None:
    """Make the inputs, run the rounds, print the tables."""
    options = _options()
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "surgeon-benchmark"
        Path(name).mkdir(parents=True, exist_ok=True)
        needed = max(3 * options.gigabytes, 1.6 * max(options.series or [0])) * 1e9 + 8e9
        if shutil.disk_usage(Path(name)).free < needed:
            raise SystemExit(f"{name} has less than {needed / 1e9:.0f} GB free: choose another --folder")
        folder.mkdir(parents=True)
        try:
            jobs = (
                [_series(folder, options)] if options.series else [_job(job, folder, options) for job in options.only]
            )
            text = "\n\n".join([_title(options), *jobs])
        finally:
            shutil.rmtree(folder)
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.5, help="size of the Llama and the Mixtral (default 1.5)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--cold", action="store_true", help="drop the inputs from the page cache before each run")
    parser.add_argument("--only", nargs="+", choices=JOBS, default=JOBS)
    parser.add_argument(
        "--series", type=float, nargs="+", metavar="GB", help="Llamas of these sizes, and surgeon alone"
    )
    parser.add_argument("--output", type=Path, help="write the tables there too")
    return parser.parse_args()


def _title(options: argparse.Namespace) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "transformers"))
    state = "cold" if options.cold else "warm"
    return (
        f"{platform.machine()}, Python {platform.python_version()}, {packages}; {options.rounds} rounds, {state} cache"
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _job(job: str, folder: Path, options: argparse.Namespace) -> str:
    work = folder / job
    work.mkdir()
    if job == "load":
        contenders, title, ground = _load(work, options)
    else:
        contenders, title, ground = _decoder(job, work, options) if job in DECODERS else _head(work, job)
    run_rounds(contenders, options.rounds, cold=options.cold, tell=_tell)
    shutil.rmtree(work)
    return f"{title}\n\n{table(contenders, LOAD if job == 'load' else CP, ground)}"


def _series(folder: Path, options: argparse.Namespace) -> str:
    """The first job at several sizes: what is read and what memory it takes."""
    ground = Contender("import torch", python("import torch"))
    run_rounds([ground], options.rounds, cold=False, tell=_tell)
    lines = [
        "**The first half of the layers, by size of the checkpoint**",
        "",
        "| checkpoint GB | kept GB | read from the disk, cold, GB | median s | CPU s | peak MB beyond `import torch` |",
        "| ---: " * 6 + "|",
    ]
    for gigabytes in options.series:
        work = folder / f"series-{gigabytes}"
        work.mkdir()
        source, output = work / "llama", work / "out"
        _make("llama", source, gigabytes)
        layers = int(json.loads((source / "config.json").read_text())["num_hidden_layers"])
        ours = _apply(work, f"operations: [{{op: truncate, keep_blocks: {layers // 2}}}]", source, output)
        kept = work / "kept"
        cold = Contender("with nothing in the page cache", [*ours.command[:-2], str(kept), "--quiet"], [source])
        run_rounds([cold], 1, cold=True, tell=_tell)
        sizes = [_gigabytes(source), _gigabytes(kept)]
        shutil.rmtree(kept)
        run_rounds([ours], options.rounds, cold=options.cold, tell=_tell)
        shutil.rmtree(work)
        peak = median(ours.megabytes) - median(ground.megabytes)
        numbers = [*sizes, cold.fetched[0] / 1e9, median(ours.seconds), median(ours.processor)]
        lines.append("| " + " | ".join(f"{number:.2f}" for number in numbers) + f" | {peak:.0f} |")
    return "\n".join(lines)


def _gigabytes(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) / 1e9


def _decoder(kind: str, work: Path, options: argparse.Namespace) -> tuple[list[Contender], str, str]:
    source, output, kept = work / kind, work / "out", work / "kept"
    layers = _make_decoder(kind, source, options)
    name = DECODERS[kind]
    ours = _apply(work, f"operations: [{{op: truncate, keep_blocks: {layers // 2}}}]", source, output)
    _once(ours, kept)
    contenders = [
        *_copies(kept, output),
        ours,
        _plan(ours),
        Contender("transformers", python(TRANSFORMERS, source, output), [source], output),
        Contender("import torch", python("import torch")),
        Contender(f"import {name}ForCausalLM", python(f"from transformers import {name}ForCausalLM")),
    ]
    if shutil.which("mergekit-yaml"):
        recipe = work / "mergekit.yaml"
        recipe.write_text(
            f"slices: [{{sources: [{{model: {source}, layer_range: [0, {layers // 2}]}}]}}]\n"
            "merge_method: passthrough\ndtype: bfloat16\n"
        )
        command = f"mergekit-yaml {recipe} {output} --no-copy-tokenizer && sync {output}/*"
        contenders.insert(-2, Contender("mergekit", ["sh", "-c", command], [source], output))
    total, size = _gigabytes(source), _gigabytes(kept)
    title = f"**The first half of the layers of a {total:.2f} GB bfloat16 {name}** ({size:.2f} GB survive)"
    return contenders, title, "import torch"


def _head(work: Path, name: str) -> tuple[list[Contender], str, str]:
    source, output, kept = work / f"{name}.pth", work / "out.pt", work / "kept.pt"
    _make("torchvision", source, name)
    ours = _apply(work, "operations: [{op: replace_head, classes: 10}]", source, output)
    _once(ours, kept)
    head, width = HEADS[name]
    contenders = [
        *_copies(kept, output),
        ours,
        _plan(ours),
        Contender("plain torch: load, edit, save", python(PLAIN_TORCH, source, output, head, width), [source], output),
        Contender(
            "torchvision: build, load, edit, save",
            python(TORCHVISION, source, output, head, width, name),
            [source],
            output,
        ),
        Contender("import torch", python("import torch")),
        Contender("import torch, torchvision", python("import torch, torchvision")),
    ]
    title = f"**A new head for {name}** ({source.stat().st_size / 1e9:.2f} GB `.pth` to `.pt`)"
    return contenders, title, "import torch"


def _load(work: Path, options: argparse.Namespace) -> tuple[list[Contender], str, str]:
    source, artifact = work / "llama", work / "artifact"
    layers = _make_decoder("llama", source, options)
    _once(_apply(work, f"operations: [{{op: truncate, keep_blocks: {layers // 2}}}]", source, artifact), artifact)
    shutil.rmtree(source)
    contenders = [
        Contender(LOAD, python(LOAD_OURS, artifact), [artifact]),
        Contender("from_pretrained", python(LOAD_THEIRS, artifact), [artifact]),
        Contender("surgeon.load, one forward", python(LOAD_OURS + USE, artifact), [artifact]),
        Contender("from_pretrained, one forward", python(LOAD_THEIRS + USE, artifact), [artifact]),
        Contender("import LlamaForCausalLM", python("from transformers import LlamaForCausalLM")),
    ]
    return contenders, "**Loading the artifact of the first job**", "import LlamaForCausalLM"


def _make(kind: str, place: Path, what: object) -> None:
    # In a process of its own: what is forked from a large one starts with its memory on the account.
    command = [sys.executable, str(Path(__file__).with_name("inputs.py")), kind, str(place), str(what)]
    subprocess.run(command, check=True)


def _make_decoder(kind: str, folder: Path, options: argparse.Namespace) -> int:
    _make(kind, folder, options.gigabytes)
    return int(json.loads((folder / "config.json").read_text())["num_hidden_layers"])


def _apply(work: Path, recipe: str, source: Path, output: Path) -> Contender:
    (work / "recipe.yaml").write_text(recipe)
    command = [*SURGEON, "apply", str(work / "recipe.yaml"), str(source), "-o", str(output), "--quiet"]
    return Contender(OURS, command, [source], output)


def _plan(ours: Contender) -> Contender:
    """The same without a byte of the weights: what imports and planning take of it."""
    recipe, source = ours.command[len(SURGEON) + 1 :][:2]
    return Contender("surgeon plan, the same", [*SURGEON, "plan", recipe, source], ours.reads)


def _once(contender: Contender, keep: Path) -> None:
    """Run ``contender`` and keep its output, whose bytes are those that the others have to write."""
    run_rounds([Contender("once before all rounds", contender.command)], 1, cold=False, tell=_tell)
    if contender.writes and contender.writes != keep:
        contender.writes.rename(keep)


def _copies(kept: Path, output: Path) -> list[Contender]:
    """The page cache's way to copy, and the disk's own."""
    made = f"mkdir -p {output}" if kept.is_dir() else "true"
    target = f"{output}/$(basename $f)" if kept.is_dir() else str(output)
    direct = (
        f"{made}; for f in {' '.join(map(str, files_of(kept)))}; do "
        f"dd if=$f of={target} bs=8M iflag=direct oflag=direct conv=fsync 2>&1 || exit 1; done"
    )
    everything = f"{output}/*" if kept.is_dir() else str(output)
    return [
        Contender(CP, ["sh", "-c", f"cp -r {kept} {output} && sync {everything}"], [kept], output),
        Contender("dd, direct", ["sh", "-c", direct], [kept], output),
    ]


if __name__ == "__main__":
    main()
