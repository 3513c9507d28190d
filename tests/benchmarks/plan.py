"""How long a plan takes after imports, and how that grows with the network.

    python tests/benchmarks/plan.py                      # all of it: 3 to 4 minutes
    python tests/benchmarks/plan.py --only moe torchvision --output plan.md

Every subject is planned in processes of its own, which have imported torch, surgeon and the network's class before
the clock starts. The networks of transformers are given as a ``config.json`` and a sparse file that has their
weights' names and takes no room. The calls of Python functions do not depend on the machine or on who else uses it:
calls for each module show whether the cost is linear.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from statistics import median
from typing import Any

SUBJECTS = ("llama-70b", "layers", "moe", "torchvision")
LAYERS = (20, 40, 80, 160, 320)
EXPERTS = 384
COLUMNS = ("parameters", "modules", "tensors", "CPU s", "wall s", "peak MB beyond imports", "Python calls", "a module")


def llama(layers: int) -> dict[str, Any]:
    """The config of Llama-3-70B (80 layers) with as many ``layers``."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672,
        "num_hidden_layers": layers, "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256,
        "tie_word_embeddings": False, "dtype": "bfloat16",
    }  # fmt: skip


def moe() -> dict[str, Any]:
    """The size of Kimi K2: DeepSeek-V3's architecture with 384 experts in each of 60 layers, 1.03 trillion in all."""
    return {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 7168,
        "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61, "num_attention_heads": 64,
        "num_key_value_heads": 64, "n_routed_experts": EXPERTS, "n_shared_experts": 1, "num_experts_per_tok": 8,
        "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "q_lora_rank": 1536, "kv_lora_rank": 512,
        "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128, "vocab_size": 163840,
        "tie_word_embeddings": False, "dtype": "bfloat16",
    }  # fmt: skip


def main() -> None:
    """Make the subjects, plan each several times, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=SUBJECTS)
    parser.add_argument("--rounds", type=int, default=3, help="processes for each subject (default 3)")
    parser.add_argument("--output", type=Path, help="write the tables there too")
    options = parser.parse_args()
    text = "\n\n".join(_tables(options.only, options.rounds))
    print(text)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")


def _tables(only: Sequence[str], rounds: int) -> list[str]:
    subjects = {}
    if "llama-70b" in only:
        subjects["Llama, 80 layers"] = llama(80)
    if "layers" in only:
        subjects |= {f"Llama, {layers} layers": llama(layers) for layers in LAYERS}
    if "moe" in only:
        subjects[f"DeepSeek-V3, {EXPERTS} experts"] = moe()
        subjects["the same as the hub holds it, a file entry for each expert's matrix"] = moe() | {"on_the_hub": True}
    texts = []
    with tempfile.TemporaryDirectory() as name:
        if subjects:
            rows = [_row(title, _hugging_face(Path(name) / str(n), config, rounds))
                    for n, (title, config) in enumerate(subjects.items())]  # fmt: skip
            recipe = "**Keep half of the blocks, freeze the first five**, planned from config and names alone"
            head = ["| | " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
            texts.append("\n".join([recipe, "", *head, *rows]))
    if "torchvision" in only:
        texts.append(_torchvision(_run("torchvision")))
    return texts


def _run(*arguments: str) -> dict[str, Any]:
    process = subprocess.run(
        [sys.executable, __file__, "--one", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    print(arguments, {key: value for key, value in result.items() if key != "each"}, file=sys.stderr, flush=True)
    return result


def _hugging_face(folder: Path, config: dict[str, Any], rounds: int) -> dict[str, Any]:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    sizes = _run("names", str(folder))
    runs = [_run("plan", str(folder)) for _ in range(rounds)]
    middle = {key: median(run[key] for run in runs) for key in ("cpu", "wall", "megabytes")}
    return sizes | runs[0] | middle | {"calls": _run("calls", str(folder))["calls"]}


def _row(title: str, result: dict[str, Any]) -> str:
    cells = [
        f"{result['parameters'] / 1e9:,.0f} G", f"{result['modules']:,}", f"{result['tensors']:,}",
        f"{result['cpu']:.2f}", f"{result['wall']:.2f}", f"{result['megabytes']:.0f}",
        f"{result['calls'] / 1e6:.2f} M", f"{result['calls'] / result['modules']:,.0f}",
    ]  # fmt: skip
    return f"| {title} | " + " | ".join(cells) + " |"


def _torchvision(run: dict[str, Any]) -> str:
    times: dict[str, float] = run["each"]
    slowest = sorted(times, key=lambda name: -times[name])[:5]
    return "\n".join(
        [
            f"**A new head and all else frozen, for each of torchvision's {len(times)} builders** (CPU seconds)",
            "",
            "| median | slowest five | past 1 s | refused |",
            "| ---: | --- | ---: | --- |",
            f"| {median(times.values()):.2f} | {', '.join(f'{name} {times[name]:.2f}' for name in slowest)} "
            f"| {sum(seconds > 1 for seconds in times.values())} | {', '.join(run['refused']) or 'none'} |",
        ]
    )


# ---- what runs in a process of its own


def one(what: str, *arguments: str) -> dict[str, Any]:
    """Do ``what``, and say what it took."""
    import torch

    torch.set_num_threads(1)
    if what == "names":
        return _write_names(Path(arguments[0]))
    if what == "torchvision":
        return _plan_builders()
    return _plan(Path(arguments[0]), _measured if what == "plan" else _counted)


def _write_names(folder: Path) -> dict[str, Any]:
    """Write a checkpoint of the network in ``folder``, all of whose values are a hole in the file."""
    import torch

    from surgeon.architectures.source import open_source
    from surgeon.plugins import load

    skeleton = open_source(f"hf:{folder}", plugins=load()).skeleton().to(torch.bfloat16)
    header: dict[str, Any] = {}
    offset = 0
    tensors = [(name, tuple(tensor.shape)) for name, tensor in skeleton.state_dict().items()]
    if json.loads((folder / "config.json").read_text()).get("on_the_hub"):
        tensors = [part for name, shape in tensors for part in _as_on_the_hub(name, shape)]
    for name, shape in tensors:
        end = offset + 2 * prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + offset)
    return {"modules": sum(1 for _ in skeleton.modules()), "tensors": len(header)}


def _as_on_the_hub(name: str, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    """The entries that a tensor of a network in memory has in the files of DeepSeek's repositories."""
    stem, _, kind = name.rpartition(".")
    if kind == "down_proj":
        return [(f"{stem}.{index}.down_proj.weight", shape[1:]) for index in range(shape[0])]
    if kind == "gate_up_proj":
        half = (shape[1] // 2, shape[2])
        return [(f"{stem}.{i}.{part}_proj.weight", half) for i in range(shape[0]) for part in ("gate", "up")]
    return [(name, shape)]


def _plan(folder: Path, measure: Callable[[Callable[[], Any]], tuple[Any, dict[str, float]]]) -> dict[str, Any]:
    import transformers

    import surgeon
    import surgeon.pipeline.api
    from surgeon.operations import Freeze, Truncate

    getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    operations = [Truncate(keep_blocks=0.5), Freeze(sites="model.layers[:5]")]
    plan, took = measure(lambda: surgeon.plan(folder, operations))
    return {"parameters": plan.parameters_before, **took}


def _measured(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e6
    return result, {"cpu": cpu, "wall": wall, "megabytes": megabytes}


def _counted(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    profile = cProfile.Profile()
    result = profile.runcall(call)
    return result, {"calls": pstats.Stats(profile).total_calls}  # type: ignore[attr-defined]


def _plan_builders() -> dict[str, Any]:
    import torchvision

    import surgeon
    import surgeon.pipeline.api
    from surgeon.errors import SurgeonError
    from surgeon.operations import Freeze, ReplaceHead

    times, refused = {}, []
    for name in torchvision.models.list_models():
        start = time.process_time()
        try:
            surgeon.plan(f"torchvision/{name}", [ReplaceHead(classes=7), Freeze(all_but="head")])
        except SurgeonError as error:
            refused.append(f"{name} ({error.message})")
        times[name] = time.process_time() - start
    return {"each": times, "refused": refused}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(*sys.argv[2:])))
    else:
        main()
