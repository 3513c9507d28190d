"""Make the record of a case, write it, read it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import families
import torch
import torchvision
import transformers
from torch import Tensor, nn

import surgeon
from golden.cases import Case, build, write_donor, write_source

RECORDS = Path(__file__).parent / "records"
TESTS = Path(__file__).parents[1]
SAMPLES = 8
"""How many values of an output are recorded."""


def path_of(name: str) -> Path:
    """The file that holds the record of a case."""
    return RECORDS / f"{name}.json"


def read_record(name: str) -> dict[str, Any]:
    """The record of a case."""
    record: dict[str, Any] = json.loads(path_of(name).read_text(encoding="utf-8"))
    return record


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Write a record, one fact a line, so that a commit shows what changed."""
    text = json.dumps(record, indent=1, ensure_ascii=False)
    text = re.sub(r"\[\s+([-+.e\d,\s]+?)\s+\]", lambda numbers: f"[{' '.join(numbers[1].split())}]", text)
    path.write_text(text + "\n", encoding="utf-8")


def make_record(case: Case, folder: Path) -> dict[str, Any]:
    """Carry out a case and record what came of it.

    Args:
        case: The case.
        folder: An empty folder for the files that it takes and writes.
    """
    recipe, artifact = folder / "recipe.json", folder / "artifact"
    recipe.write_text(json.dumps({"seed": 3, "operations": case.operations}), encoding="utf-8")
    write_donor(case, folder)
    if case.file:
        write_source(case, folder / case.file)
        plan = json.loads(_command(folder, "plan", recipe.name, case.file, "--json"))
        _command(folder, "apply", recipe.name, case.file, "-o", artifact.name, "--quiet")
        model = surgeon.load(artifact)
    else:
        source = build(case.network)
        before = _hashes(source)
        plan = json.loads(json.dumps(surgeon.plan(source, recipe).to_dict()))
        model = surgeon.apply(source, recipe)
        surgeon.save(model, artifact)
        assert _hashes(source) == before, "the network that was handed in has changed"
        _check_loaded(case, model, artifact)
    made = {t["name"] for t in plan["tensors"] if t["origin"] != "kept" and not t["source"]}
    record = {
        "environment": environment(),
        "tensors": _tensors(model, made),
        "in eval mode after train()": _lasting_eval(model),
        "plan": _short_plan(plan),
        "manifest": _short_manifest(artifact),
        "outputs": _outputs(case, model),
    }
    return _without_path(record, folder)


def environment() -> dict[str, str]:
    """What the values of new tensors may depend on, beside the seed: libraries draw by their build and by the CPU."""
    return {
        "torch": torch.__version__.partition("+")[0],
        "torchvision": torchvision.__version__.partition("+")[0],
        "transformers": transformers.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def _command(folder: Path, *arguments: str) -> str:
    """Run ``surgeon`` in ``folder`` and return what it prints."""
    paths = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
    process = subprocess.run(
        [sys.executable, "-m", "surgeon", *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def _check_loaded(case: Case, model: nn.Module, artifact: Path) -> None:
    """Hold what was written to what is in memory."""
    arch = getattr(families, case.network) if case.network in families.TORCHVISION else None
    loaded = surgeon.load(artifact, arch=arch)
    assert _hashes(loaded) == _hashes(model), "the artifact holds other tensors than the network in memory"
    assert _lasting_eval(loaded) == _lasting_eval(model), "the artifact trains other modules"
    assert _outputs(case, loaded) == _outputs(case, model), "the artifact gives other outputs"


def _lasting_eval(model: nn.Module) -> list[str]:
    """The modules that ``train()`` leaves in eval mode: frozen norms, earlier columns."""
    model.train()
    names = [name for name, module in model.named_modules() if not module.training]
    model.eval()
    return names


def _hashes(model: nn.Module) -> dict[str, str]:
    return {name: _hash(tensor) for name, tensor in model.state_dict().items()}


def _hash(tensor: Tensor) -> str:
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + raw.tobytes()).hexdigest()[:16]


def _tensors(model: nn.Module, made: set[str]) -> dict[str, Any]:
    """Hash every tensor; add figures of those that surgery drew or computed, since other CPUs draw other bits."""
    hashes, tensors = _hashes(model), model.state_dict()
    return {
        name: {"hash": value, **_figures(tensors[name])} if name in made else value for name, value in hashes.items()
    }


def _figures(tensor: Tensor) -> dict[str, Any]:
    values = tensor.detach().double()
    spread = values.std(correction=0) if values.numel() else values.sum()
    mean = values.mean() if values.numel() else values.sum()
    return {"shape": list(tensor.shape), "mean": _rounded(mean), "std": _rounded(spread)}


def _rounded(value: Tensor | float) -> float:
    return float(f"{float(value):.5g}")


def _short_plan(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with one line for a tensor."""
    return {**plan, **{key: {t["name"]: _short_fact(t) for t in plan[key]} for key in ("tensors", "dropped")}}


def _short_fact(fact: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in fact.items() if key != "name"}
    if shown.get("source") == fact["name"]:
        shown["source"] = "same name"
    return ", ".join(f"{key} {value}" for key, value in shown.items() if value is not None)


def _short_manifest(artifact: Path) -> dict[str, Any]:
    """The manifest, and the config of a transformers network, less what the libraries' versions decide.

    The digests depend on those versions too; every tensor has a hash of its own here.
    """
    manifest = json.loads((artifact / "surgeon.json").read_text(encoding="utf-8"))
    for key in ("versions", "digest", "files"):
        manifest.pop(key)
    for surgeries in manifest["record"]["surgeries"]:
        for recorded in surgeries["resolved"]:
            recorded.pop("release")
    outputs = manifest.get("outputs", {"tensors": {}})["tensors"]
    for part, sketches in (("outputs", outputs), ("state", manifest.get("state", {}))):
        manifest[part] = {name: sketch["shape"] for name, sketch in sketches.items()}
    facts: dict[str, Any] = {"files": sorted(p.name for p in artifact.iterdir()), **_short(manifest)}
    config = artifact / "config.json"
    if config.exists():
        facts["config.json"] = _short(json.loads(config.read_text(encoding="utf-8")))
    return facts


def _short(value: Any) -> Any:
    """The same without settings at their library's default, and ``{name: name}`` as a list."""
    if isinstance(value, list):
        return [_short(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "model_type" in value:
        defaults = json.loads(json.dumps(transformers.AutoConfig.for_model(value["model_type"]).to_dict(), default=str))
        defaults |= {"transformers_version": value.get("transformers_version"), "model_type": None}
        value = {k: v for k, v in sorted(value.items()) if k not in defaults or defaults[k] != v}
    if len(value) > 1 and all(key == item for key, item in value.items()):
        return {"same names": list(value)}
    return {key: _short(item) for key, item in value.items()}


def _outputs(case: Case, model: nn.Module) -> dict[str, Any]:
    """Shapes and figures of one forward; a detector's also without their order, since scores may be close."""
    args, kwargs = case.inputs()
    model.eval()
    with torch.no_grad():
        result = model(*args, **kwargs)
    outputs = {}
    for name, tensor in _flat(result):
        values = tensor.detach().double().reshape(-1)
        if case.network in families.DETECTION:
            values = values.sort().values
        picked = torch.linspace(0, max(0, values.numel() - 1), min(SAMPLES, values.numel())).long()
        outputs[name] = {**_figures(tensor), "values": [_rounded(v) for v in values[picked]]}
    return outputs


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield prefix or "output", value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _flat(item, f"{prefix}.{index}".lstrip("."))


def _without_path(record: dict[str, Any], folder: Path) -> dict[str, Any]:
    text = json.dumps(record)
    for path in {str(folder), str(folder.resolve())}:
        text = text.replace(json.dumps(path)[1:-1], "FOLDER")
    assert not re.search(r"/tmp/|\\\\Temp\\\\", text), "the record holds a path of this machine"
    cleaned: dict[str, Any] = json.loads(text)
    return cleaned
