"""Put hostile pickles wherever a file can stand, and open them with every command: none may run.

A pickle that runs writes a marker; besides, a child ends the moment that it starts a process, evaluates code, opens a
socket or deletes a file outside of its folder.
"""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.forked import forked
from faults.kills import surgeon
from faults.places import unclear
from faults.tally import Tally

MARKER = "ran"
SECONDS = 10
MEGABYTES = 300


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.arguments


def named(name: str, *arguments: Any) -> bytes:
    """A pickle that calls what a GLOBAL names: ``module name``."""
    module, function = name.split(" ")
    body = b"".join(pickle.dumps(argument, 2)[2:-1] for argument in arguments)
    return b"\x80\x02c" + f"{module}\n{function}\n".encode() + b"(" + body + b"tR."


def stack_global(module: str, name: str, *arguments: Any) -> bytes:
    """The same by STACK_GLOBAL, with the name on the stack."""
    body = b"".join(pickle.dumps(argument, 2)[2:-1] for argument in arguments)
    text = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    return b"\x80\x04" + text + b"\x93(" + body + b"tR."


TOUCH = f"touch {MARKER}"
CODE = f"open({MARKER!r}, 'w')"


def kinds() -> dict[str, bytes]:
    """Every kind of hostile pickle, by name."""
    import torch

    tensor = torch._utils._rebuild_tensor_v2
    inst = b"(S'" + TOUCH.encode() + b"'\nios\nsystem\n."
    size = b"\x8a\x08" + struct.pack("<q", 1 << 50)
    storage = b"(S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\n" + size + b"tQK\x00(" + size + b"t(K\x01t\x89}tR."
    storage = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + storage
    build = b"\x80\x02cbuiltins\nobject\n)\x81}S'__class__'\ncos\nsystem\nsb."
    return {
        "os.system": named("os system", TOUCH),
        "posix.system": named("posix system", TOUCH),
        "nt.system": named("nt system", TOUCH),
        "eval": named("builtins eval", CODE),
        "exec": named("builtins exec", CODE),
        "python 2 eval": named("__builtin__ eval", CODE),
        "compile": named("builtins compile", CODE, "x", "exec"),
        "open": named("builtins open", MARKER, "w"),
        "io.open": named("io open", MARKER, "w"),
        "import": named("builtins __import__", "antigravity"),
        "getattr": named("builtins getattr", "x", "upper"),
        "subprocess.Popen": named("subprocess Popen", ["touch", MARKER]),
        "subprocess.run": named("subprocess run", ["touch", MARKER]),
        "shutil.rmtree": named("shutil rmtree", "net.pt"),
        "pty.spawn": named("pty spawn", ["touch", MARKER]),
        "runpy": named("runpy run_path", "evil.py"),
        "webbrowser": named("webbrowser open", "http://example.org"),
        "socket": named("socket create_connection", "x"),
        "pickle.loads": named("_pickle loads", named("os system", TOUCH)),
        "marshal": named("marshal loads", b"c"),
        "types.CodeType": named("types FunctionType", "x"),
        "importlib": named("importlib import_module", "evil"),
        "torch.load": named("torch load", "evil.pt"),
        "torch.hub.load": named("torch.hub load", "x/y", "z"),
        "torch.jit.load": named("torch.jit load", "evil.pt"),
        "torch.ops": named("torch.ops load_library", "evil.so"),
        "torch.classes": named("torch.classes load_library", "evil.so"),
        "numpy.load": named("numpy load", "evil.npy"),
        "numpy.runstring": named("numpy.testing._private.utils runstring", CODE, {}),
        "functools.partial": named("functools partial", len),
        "operator.attrgetter": named("operator methodcaller", "system", TOUCH),
        "copyreg": named("copyreg _reconstructor", object, object, None),
        "timeit": named("timeit timeit", CODE),
        "cProfile": named("cProfile run", CODE),
        "bdb": named("bdb Bdb"),
        "pip": named("pip main", ["list"]),
        "ctypes": named("ctypes CDLL", "libc.so.6"),
        "logging.config": named("logging.config listen"),
        "code interpreter": named("code interact"),
        "surgeon's own": named("surgeon.cli.app run", ["schema"]),
        "user's module": named("evil run", "x"),
        "transformers": named("transformers.pipelines pipeline", "x"),
        "stack global": stack_global("os", "system", TOUCH),
        "dotted name": stack_global("os", "path.os.system", TOUCH),
        "torch through": stack_global("torch", "os.system", TOUCH),
        "torch serialization os": stack_global("torch.serialization", "os.system", TOUCH),
        "INST": inst,
        "BUILD of a class": build,
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n(]S'touch'\naS'ran'\natt\x81.",
        "extension registry": b"\x80\x02\x82\x01.",
        "persistent id": b"\x80\x02(S'storage'\ncos\nsystem\nS'0'\nS'cpu'\nK\x01tQ.",
        "persistent id as text": b"Pos.system\n.",
        "rebuild with a function": pickle.dumps(Calls(tensor, Calls(os.system, TOUCH), 0, (1,), (1,), False, {}), 2),
        "in a dictionary's key": pickle.dumps({"a": 1, "b": [Calls(os.system, TOUCH)]}, 2),
        "after a good one": pickle.dumps({"a": 1}, 2) + named("os system", TOUCH),
        "nested": pickle.dumps({"state_dict": {"x": Calls(os.system, TOUCH)}}, 2),
        "deep recursion": b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".",
        "memo bomb": b"\x80\x02]" + b"q\x00" + b"".join(b"(h\x00h\x00l" + b"q\x00" for _ in range(200)) + b".",
        "huge LONG4": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",
        "huge BINUNICODE8": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b".",
        "huge BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
        "huge memo index": b"\x80\x02}r" + struct.pack("<I", 2**31 - 1) + b".",
        "huge frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}.",
        "huge storage": storage,
    }  # fmt: skip


CONTAINERS = ("zip", "legacy", "bare")


def contained(data: bytes, container: str) -> bytes:
    """The pickle as a checkpoint's, as an old checkpoint's third, or by itself."""
    if container == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in {
                "data.pkl": data,
                "byteorder": b"little",
                "version": b"3\n",
                "data/0": bytes(64),
            }.items():
                archive.writestr(f"archive/{name}", content)
        return buffer.getvalue()
    if container == "legacy":
        head = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
        return b"".join(pickle.dumps(part, 2) for part in head) + data + pickle.dumps([], 2)
    return data


ARCH = ["--arch", "python:families:vgg"]
DIGITS = "{source: digits, classes: [0, 1], per_class: 2, canvas: 8, size: 32}"
COMMANDS: dict[str, Callable[[str], list[str]]] = {
    "inspect": lambda model: ["inspect", model],
    "plan": lambda model: ["plan", "recipe.yaml", model, *ARCH],
    "apply": lambda model: ["apply", "recipe.yaml", model, *ARCH, "-o", "out", "-q"],
    "check": lambda model: ["check", model],
    "diff": lambda model: ["diff", model, "net.pt"],
    "train": lambda model: ["train", "train.yaml", model, *ARCH, "-o", "out", "-q"],
    "advise": lambda model: ["advise", model, "--data", DIGITS, *ARCH],
    "predict": lambda model: ["predict", model, "--data", DIGITS, *ARCH],
    "evaluate": lambda model: ["evaluate", model, "--data", DIGITS, *ARCH],
    "export": lambda model: ["export", model, "--to", "state-dict", "-o", "out.pt"],
    "load": lambda model: ["load", model],
}


def _donor(folder: Path, data: bytes) -> list[list[str]]:
    (folder / "donor.pt").write_bytes(data)
    return [
        [verb, "donor.yaml", "net.pt", *ARCH, *(["-o", "out"] if verb == "apply" else [])] for verb in ("plan", "apply")
    ]


def _source(folder: Path, data: bytes) -> list[list[str]]:
    (folder / "source.pt").write_bytes(data)
    return [
        ["check", "good", "--trust-code", "families", "--source", "source.pt"],
        ["diff", "good", "source.pt", "--trust-code", "families"],
    ]


def _optimizer(folder: Path, data: bytes) -> list[list[str]]:
    """In a folder of an interrupted training, whose state the resumed one reads."""
    shutil.copytree(folder.parent / "interrupted", folder / "out.checkpoints")
    return [["train", "train.yaml", "net.pt", *ARCH, "-o", "out", "-q", "--resume"]]


def _every(path: str) -> Callable[[Path, bytes], list[list[str]]]:
    def place(folder: Path, data: bytes) -> list[list[str]]:
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(data)
        model = "hf" if path.startswith("hf/") else path
        if "-of-" in path:
            (folder / "hf/pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "%s"}}' % Path(path).name)  # noqa: UP031
        if path.startswith("hf/"):
            (folder / "hf/config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
        return [command(model) for command in COMMANDS.values()]

    return place


def _state(name: str) -> Callable[[Path, bytes], list[list[str]]]:
    def place(folder: Path, data: bytes) -> list[list[str]]:
        commands = _optimizer(folder, data)
        for checkpoint in (folder / "out.checkpoints").glob("checkpoint-*"):
            (checkpoint / name).write_bytes(data)
        return commands

    return place


PLACES: dict[str, Callable[[Path, bytes], list[list[str]]]] = {
    "model .pt": _every("x.pt"),
    "model .pth": _every("x.pth"),
    "model .ckpt": _every("x.ckpt"),
    "model .bin": _every("x.bin"),
    "named .safetensors": _every("x.safetensors"),
    "pytorch_model.bin": _every("hf/pytorch_model.bin"),
    "shard .bin": _every("hf/pytorch_model-00001-of-00001.bin"),
    "model.safetensors in a folder": _every("hf/model.safetensors"),
    "config.json in a folder": _every("hf/config.json"),
    "surgeon.json in a folder": _every("hf/surgeon.json"),
    "donor": _donor,
    "source": _source,
    "optimizer state": _state("optimizer.pt"),
    "scheduler state": _state("scheduler.pt"),
    "random state": _state("rng_state.pth"),
    "training arguments": _state("training_args.bin"),
    "training tensors": _state("training.safetensors"),
    "trainer state": _state("trainer_state.json"),
}
"""Where a hostile file can stand, and the commands that open it there."""

FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "subprocess.Popen", "pty.spawn",
             "socket.connect", "socket.getaddrinfo", "ctypes.dlopen", "webbrowser.open", "shutil.rmtree")  # fmt: skip


def _watch(folder: Path) -> None:
    """End the process with 99 when a pickle does what it must not."""

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event.startswith(FORBIDDEN):
            if event == "shutil.rmtree" and "net.pt" not in str(arguments[0]):
                return
            if event == "ctypes.dlopen" and not str(arguments[0]).startswith(("evil", "libc.so.6")):
                return
            os.write(2, f"executed: {event} {arguments}".encode())
            os._exit(99)
        if event == "open" and str(arguments[0]).endswith((MARKER, "evil.py", "evil.pt", "evil.npy")):
            os.write(2, f"executed: {event} {arguments}".encode())
            os._exit(99)

    sys.addaudithook(audit)


def _make(root: Path) -> Path:
    import torch
    from families import vgg

    folder = root / "scene"
    folder.mkdir()
    torch.manual_seed(0)
    torch.save(vgg().state_dict(), folder / "net.pt")
    (folder / "recipe.yaml").write_text("operations: [{op: replace_head, classes: 2}]\n")
    train = f"operations: [{{op: replace_head, classes: 2}}]\ntrain: {{epochs: 3, batch_size: 2, data: {DIGITS}}}\n"
    (folder / "train.yaml").write_text(train)
    (folder / "donor.yaml").write_text("operations: [{op: transfer, donor: donor.pt}]\n")
    (folder / "evil.py").write_text(CODE + "\ndef run(*_): ...\n")
    ended = forked(lambda: surgeon(["apply", "recipe.yaml", "net.pt", *ARCH, "-q", "-o", "good"]), folder=folder)
    assert not ended.status, ended.err

    def interrupted() -> int:
        from surgeon.training.callbacks import ProgressCallback

        begin = ProgressCallback.on_step_begin

        def step(self: Any, args: Any, state: Any, *rest: Any, **options: Any) -> Any:
            if state.epoch and state.epoch >= 2:
                os._exit(77)
            return begin(self, args, state, *rest, **options)

        ProgressCallback.on_step_begin = step  # type: ignore[method-assign]
        return surgeon(["train", "train.yaml", "net.pt", *ARCH, "-o", "out", "-q"])

    ended = forked(interrupted, folder=folder)
    assert ended.status == 77, ended.err
    (folder / "out.checkpoints").rename(root / "interrupted")
    return folder


def run(tally: Tally) -> None:
    """Try every kind at every place in every command, or a few."""
    with tempfile.TemporaryDirectory(prefix="surgeon-pickles-") as name:
        root = Path(name)
        scene, dice = _make(root), random.Random(0)
        pickles = kinds()
        cases = [(kind, place) for kind in pickles for place in PLACES]
        for kind, place in tally.chosen(cases, 10):
            folder = root / "case"
            shutil.copytree(scene, folder)
            commands = PLACES[place](folder, contained(pickles[kind], dice.choice(CONTAINERS)))
            for command in commands if tally.share else dice.sample(commands, 1):
                _open(tally, folder, command, f"{kind} as {place}: {' '.join(command)}")
            shutil.rmtree(folder)


def _open(tally: Tally, folder: Path, command: list[str], case: str) -> None:
    def child() -> int:
        sys.path.insert(0, str(folder))
        _watch(folder)
        if command[0] != "load":
            return surgeon(command)
        from surgeon import load
        from surgeon.errors import SurgeonError

        try:
            load(command[1])
        except SurgeonError as error:
            print(error, file=sys.stderr)
            return error.exit_code
        return 0

    ended = forked(child, folder=folder, seconds=3 * SECONDS)
    ran = [path.name for path in folder.rglob("*") if path.name == MARKER]
    wrong = unclear(ended)
    if ended.status == 99 or ran or not (folder / "net.pt").exists():
        wrong = f"executed: {ended.err}"
    elif ended.busy > SECONDS:
        wrong = f"took {ended.busy:.1f} s"
    elif ended.megabytes > MEGABYTES:
        wrong = f"took {ended.megabytes} MB"
    elif (
        not ended.status
        and "trainer state"
        not in case  # a checkpoint without one counts as incomplete: training starts from the beginning
        and "training arguments" not in case
        and "training tensors" not in case
    ):
        wrong = wrong or "it was read"
    tally.add(case, "refused" if ended.status else "not read", wrong)
    for left in ("out", "out.pt"):
        shutil.rmtree(folder / left, ignore_errors=True) if (folder / left).is_dir() else (folder / left).unlink(
            missing_ok=True
        )
