"""Small files that ask for absurd sizes: each is refused within two seconds and 300 MB beyond what imports take."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from faults.forked import forked
from faults.hostile_pickles import ARCH, DIGITS
from faults.kills import surgeon
from faults.places import unclear
from faults.tally import Tally

SECONDS = 2.0
MEGABYTES = 300
HUGE = (10**6, 10**9, 10**12, 1 << 62, 1e300)
CONFIG = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 16,
          "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 30,
          "max_position_embeddings": 16}  # fmt: skip
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 16, "vocab_size": 30,
         "max_position_embeddings": 16}  # fmt: skip
VIT = {"model_type": "vit", "architectures": ["ViTForImageClassification"],
       "hidden_size": 16, "num_hidden_layers": 1,
       "num_attention_heads": 2, "intermediate_size": 16, "image_size": 32, "patch_size": 16,
       "num_channels": 3}  # fmt: skip
SWIN = {"model_type": "swin", "architectures": ["SwinForImageClassification"], "image_size": 32, "patch_size": 4,
        "embed_dim": 8, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}  # fmt: skip
FIELDS = ("num_hidden_layers", "hidden_size",
          "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size",
          "max_position_embeddings", "type_vocab_size", "num_labels", "image_size", "patch_size", "num_channels",
          "embed_dim", "window_size", "head_dim")  # fmt: skip


Values = Callable[[], dict[str, Any]]
"""Makes a config; the large ones would weigh on every fork if they were there all the time."""


def configs() -> Iterator[tuple[str, Values]]:
    """Configs with one absurd value each."""
    for base in (CONFIG, LLAMA, VIT, SWIN):
        for field in FIELDS:
            if field in base or field in ("num_labels", "head_dim"):
                for value in HUGE:
                    yield f"{base['model_type']} {field} {value:.0e}", partial(dict, base, **{field: value})
    million = [1] * 1_000_000
    for base in (CONFIG, VIT):
        yield f"{base['model_type']} id2label of 2e5", partial(_labels, base)
    yield "swin depths 1e6", partial(dict, SWIN, depths=[1_000_000, 1])
    yield "swin a million stages", partial(dict, SWIN, depths=million, num_heads=million)
    types = ["full_attention"] * 1_000_000
    yield "llama layer types", partial(dict, LLAMA, layer_types=types, num_hidden_layers=1_000_000)
    yield "bert pruned heads", lambda: {**CONFIG, "pruned_heads": {str(i): [0] for i in range(100_000)}}
    nested: Any = {}
    for _ in range(500):
        nested = {"text_config": nested}
    yield "bert nested", partial(dict, CONFIG, **nested)


def _labels(base: dict[str, Any]) -> dict[str, Any]:
    return {**base, "id2label": {str(i): "x" for i in range(200_000)}}


RECIPES = {
    "classes": "{op: replace_head, classes: 1000000000000}",
    "tasks": "{op: multitask, tasks: {a: {classes: 1000000000000}}}",
    "add_classes": "{op: add_classes, classes: 1000000000}",
    "channels": "{op: adapt_input, channels: 1000000000000}",
    "resolution": "{op: adapt_input, size: 1000000000}",
    "keep_blocks": "{op: truncate, keep_blocks: 1000000000000}",
}


def _config(values: Values, weights: bool) -> Callable[[Path], list[list[str]]]:
    def place(folder: Path) -> list[list[str]]:
        (folder / "hf").mkdir()
        (folder / "hf" / "config.json").write_text(json.dumps(values()))
        if weights:
            import torch
            from safetensors.torch import save_file

            save_file({"classifier.weight": torch.ones(2, 16)}, folder / "hf" / "model.safetensors")
        return [["inspect", "hf"], ["plan", "recipe.yaml", "hf"], ["apply", "recipe.yaml", "hf", "-o", "out", "-q"]]

    return place


def _recipe(text: str) -> Callable[[Path], list[list[str]]]:
    def place(folder: Path) -> list[list[str]]:
        (folder / "bomb.yaml").write_text(f"operations:\n  - {text}\n")
        return [["plan", "bomb.yaml", "net.pt", *ARCH], ["apply", "bomb.yaml", "net.pt", *ARCH, "-o", "out", "-q"]]

    return place


def _inputs(text: str) -> Callable[[Path], list[list[str]]]:
    def place(folder: Path) -> list[list[str]]:
        (folder / "bomb.yaml").write_text(f"inputs: {text}\noperations:\n  - {{op: replace_head, classes: 2}}\n")
        return [["plan", "bomb.yaml", "net.pt", *ARCH]]

    return place


def _manifest(*path: str | int, value: Any) -> Callable[[Path], list[list[str]]]:
    def place(folder: Path) -> list[list[str]]:
        from surgeon.checkpoint.digests import sealed

        manifest = json.loads((folder / "good" / "surgeon.json").read_text())
        inner = manifest
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        (folder / "good" / "surgeon.json").write_text(json.dumps(sealed(manifest)))
        trust = ["--trust-code", "families"]
        return [["inspect", "good", *trust], ["check", "good", *trust], ["plan", "recipe.yaml", "good", *trust]]

    return place


def _deep(name: str) -> Callable[[Path], list[list[str]]]:
    def place(folder: Path) -> list[list[str]]:
        (folder / "good" / name).write_text('{"a":' * 200_000 + "1" + "}" * 200_000)
        return [["inspect", "good", "--trust-code", "families"]]

    return place


def _large(name: str, data: Callable[[], bytes]) -> Callable[[Path], list[list[str]]]:
    def place(folder: Path) -> list[list[str]]:
        (folder / "bomb").write_bytes(data())
        return {
            "recipe": [["plan", "bomb", "net.pt", *ARCH]],
            "model": [["inspect", "bomb"]],
        }[name]

    return place


def _data(text: str) -> Callable[[Path], list[list[str]]]:
    def place(folder: Path) -> list[list[str]]:
        return [["evaluate", "net.pt", *ARCH, "--data", text]]

    return place


def cases() -> dict[str, Callable[[Path], list[list[str]]]]:
    """Every bomb, by name."""
    made: dict[str, Callable[[Path], list[list[str]]]] = {}
    for name, values in configs():
        made[f"config {name}"] = _config(values, True)
        made[f"config {name}, no weights"] = _config(values, False)
    made |= {f"recipe {name}": _recipe(text) for name, text in RECIPES.items()}
    for text in (
        "[[1000000, 1000000]]",
        "[[1, 3, 1000000000, 1000000000]]",
        "[[99999999999999999999]]",
        "{x: [1000000, 4096]}",
    ):
        made[f"inputs {text}"] = _inputs(text)
    surgery = ("record", "surgeries", -1)
    for value in (10**6 + 1, 10**9, 10**12, 1 << 62):
        made[f"manifest classes {value:.0e}"] = _manifest(*surgery, "operations", 0, "classes", value=value)
        made[f"manifest inputs {value:.0e}"] = _manifest(*surgery, "inputs", value=[[value, 3, 32, 32]])
    made["manifest a million operations"] = _manifest(
        *surgery, "operations", value=[{"op": "replace_head", "classes": 2}] * 1_000_000
    )
    made["manifest nested"] = _deep("surgeon.json")
    made["recipe nested"] = _large("recipe", lambda: b"[" * 1_000_000)
    made["recipe of 100 MB"] = _large("recipe", lambda: b"a: 1\n" * 20_000_000)
    made["header of a zettabyte"] = _large("model", lambda: (1 << 62).to_bytes(8, "little") + b"{")
    made["header nested"] = _large("model", lambda: (600_000).to_bytes(8, "little") + b'{"a":' * 120_000)
    made["a hundred thousand tensors"] = _large("model", partial(_tensors, "t{}", 100_000))
    made["ten thousand tensors"] = _large("model", partial(_tensors, "t{}", 10_000))
    made["ten thousand numbered tensors"] = _large("model", partial(_tensors, "{}.weight", 10_000))
    for key in ("per_class", "canvas", "size"):
        made[f"digits {key}"] = _data("{source: digits, %s: 1000000000}" % key)  # noqa: UP031
    return made


def _tensors(name: str, count: int) -> bytes:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({name.format(i): entry for i in range(count)}).encode()
    return len(header).to_bytes(8, "little") + header


def run(tally: Tally) -> None:
    """Try all, or a few."""
    import torch
    from families import vgg

    with tempfile.TemporaryDirectory(prefix="surgeon-bombs-") as name:
        root = Path(name)
        scene = root / "scene"
        scene.mkdir()
        torch.save(vgg().state_dict(), scene / "net.pt")
        (scene / "recipe.yaml").write_text("operations: [{op: replace_head, classes: 2}]\n")
        train = f"operations: [{{op: replace_head, classes: 2}}]\ntrain: {{epochs: 1, data: {DIGITS}}}\n"
        (scene / "train.yaml").write_text(train)
        ended = forked(lambda: surgeon(["apply", "recipe.yaml", "net.pt", *ARCH, "-q", "-o", "good"]), folder=scene)
        assert not ended.status, ended.err
        made = cases()
        for case in tally.chosen(list(made), 10):
            folder = root / "case"
            shutil.copytree(scene, folder)
            for command in made[case](folder):
                ended = forked(lambda: surgeon(command), folder=folder, seconds=30)  # noqa: B023
                wrong = unclear(ended)
                if not wrong and ended.busy > SECONDS:
                    wrong = f"took {ended.busy:.1f} s: {ended.err}"
                if not wrong and ended.megabytes > MEGABYTES:
                    wrong = f"took {ended.megabytes} MB: {ended.err}"
                tally.add(f"{case}: {' '.join(command)}", "refused" if ended.status else "done within bounds", wrong)
            shutil.rmtree(folder)
