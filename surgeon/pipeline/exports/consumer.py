"""Load an exported network as its consumer does and run it: a script for a separate process without surgeon.

Usage: ``python -P consumer.py FORM EXPORT FOLDER``. The folder contains ``inputs.pt`` (a list of calls) or, for
onnx, one ``inputs-N.npz`` per call; the outputs are written beside them as ``outputs.pt`` or ``outputs-N.npz``. The
script does not import surgeon and refuses imports of it, also by a loaded file.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class NoSurgeon:
    """An import finder that precedes all others and refuses ``surgeon``."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """Raise ImportError for surgeon; leave other modules to the next finder."""
        if name.partition(".")[0] == "surgeon":
            raise ImportError(f"the export asks for {name}, which is not available without surgeon")


def flat(value: Any, at: str = "") -> dict[str, Any]:
    """Return the tensors in an output by path, as surgeon does before it exports."""
    import torch

    if isinstance(value, torch.Tensor):
        return {at or "output": value}
    tensors: dict[str, Any] = {}
    if isinstance(value, (Mapping, list, tuple)):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            tensors.update(flat(item, f"{at}.{key}" if at else str(key)))
    return tensors


def run_torch(load: Callable[[], Callable[..., Any]], folder: Path) -> None:
    """Call the result of ``load`` with every saved call, and save the outputs."""
    import torch

    calls = torch.load(folder / "inputs.pt", weights_only=True)
    network = load()
    outputs = []
    with torch.no_grad():
        for args, kwargs in calls:
            torch.manual_seed(0)
            outputs.append({name: tensor.clone() for name, tensor in flat(network(*args, **kwargs)).items()})
    torch.save(outputs, folder / "outputs.pt")


def torch_export(export: Path, folder: Path) -> None:
    """Load a program with torch.export only."""
    import torch

    run_torch(lambda: torch.export.load(export).module(), folder)


def state_dict(export: Path, folder: Path) -> None:
    """Load tensors with torch or safetensors only, write their digests, and run the program beside them, if any."""
    import torch

    if export.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors = load_file(export)
    else:
        tensors = torch.load(export, weights_only=True)
    digests = {}
    for name, tensor in tensors.items():
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        digests[name] = [str(tensor.dtype), list(tensor.shape), hashlib.sha256(data).hexdigest()]
    (folder / "digests.json").write_text(json.dumps(digests))
    program = folder / "program.pt2"
    if not program.exists():
        return

    def load() -> Callable[..., Any]:
        module = torch.export.load(program).module()
        with torch.no_grad():  # no value of the original program may remain
            for tensor in module.state_dict().values():
                tensor.zero_()
        missing = module.load_state_dict({f"model.{name}": t for name, t in tensors.items()}, strict=False).missing_keys
        if missing:
            raise KeyError(f"the state dict lacks {', '.join(missing[:3])}")
        return module

    run_torch(load, folder)


def hf(export: Path, folder: Path) -> None:
    """Load a folder by the class that its config names, by transformers alone; with the folder's code, if it has any.

    Transformers copies such code into its cache, which for this process lies beside the inputs.
    """
    os.environ["HF_MODULES_CACHE"] = str(folder / "modules")
    import transformers

    config = json.loads((export / "config.json").read_text())

    def load() -> Any:
        if "auto_map" in config:
            model, loading = transformers.AutoModel.from_pretrained(
                export, trust_remote_code=True, output_loading_info=True
            )
            wrong = [name for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in loading[key]]
            if wrong:
                raise KeyError(f"from_pretrained finds other tensors than the folder holds: {wrong[0]}")
            return model.eval()
        return getattr(transformers, config["architectures"][0]).from_pretrained(export).eval()

    run_torch(load, folder)


def onnx(export: Path, folder: Path) -> None:
    """Run a graph with onnxruntime and numpy only."""
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(str(export), providers=["CPUExecutionProvider"])
    inputs_of_graph = [entry.name for entry in session.get_inputs()]
    names = [entry.name for entry in session.get_outputs()]
    for path in sorted(folder.glob("inputs-*.npz")):
        inputs = dict(np.load(path))
        outputs = session.run(names, {name: inputs[name] for name in inputs_of_graph})
        np.savez(folder / path.name.replace("inputs", "outputs"), **dict(zip(names, outputs, strict=True)))


FORMS = {"torch-export": torch_export, "state-dict": state_dict, "hf": hf, "onnx": onnx}

if __name__ == "__main__":
    sys.meta_path.insert(0, NoSurgeon())
    FORMS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
