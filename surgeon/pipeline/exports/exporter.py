"""Export a network: write to a temporary path, run the result without surgeon, compare, then move it to the output."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from torch import nn

from surgeon.architectures.trust import TrustCode
from surgeon.checkpoint.artifact import REPLACE, check_place
from surgeon.checkpoint.companions import BASE_CARD, Companion, read_companions, summarise, write_companions
from surgeon.checkpoint.scratch import appearing
from surgeon.data.requirements import require
from surgeon.errors import ExportError, OutputError, SurgeonError, VerificationError, name_nearest_option, suggest
from surgeon.interfaces.composite import composite_of
from surgeon.interfaces.record import record_of
from surgeon.pipeline.api import load
from surgeon.pipeline.exports.call import Call, call_of
from surgeon.pipeline.exports.comparison import (
    check_outputs,
    compare_outputs,
    read_digests,
    run_consumer,
    write_inputs,
)
from surgeon.pipeline.exports.grafts.code import MODELING
from surgeon.pipeline.exports.onnx_file import write_onnx
from surgeon.pipeline.exports.program import Dynamic, ways, write_program
from surgeon.pipeline.exports.state_dict_file import digests, write_state_dict_file
from surgeon.pipeline.exports.transformers_folder import write_folder
from surgeon.plugins import Plugins, as_plugins
from surgeon.surgery.inspection import inspection_of

Form = Literal["torch-export", "onnx", "state-dict", "hf"]
SUFFIXES: dict[str, tuple[str, ...]] = {
    "torch-export": (".pt2",),
    "onnx": (".onnx",),
    "state-dict": (".pt", ".pth", ".safetensors"),
}
"""How the file of each form ends; ``hf`` is a folder."""
WRITTEN = re.compile(
    r"config\.json|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|(modeling_grafted|surgeons_\w+)\.py"
)
"""The files that an ``hf`` export consists of, beside companions: a folder of nothing else may be replaced."""
CODE = "the folder holds the code that builds it, so that from_pretrained needs trust_remote_code=True"
STATIC = Dynamic(batch=False, length=False)


@dataclass(frozen=True)
class Export:
    """The result of :func:`export`.

    Attributes:
        path: The file or folder.
        form: Its format.
        inputs: The names of its inputs.
        outputs: The outputs that were compared; empty if only tensors were.
        cases: The number of inputs that they were compared on.
        difference: The largest difference, relative to the largest value of its output.
        dynamic: The dynamic sizes: ``batch``, ``length``.
        notes: Remarks: sizes that are fixed and why, what was not compared.
        shapes: The shape of each input of a program: sizes, and the names of dynamic ones.
    """

    path: Path
    form: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    cases: int
    difference: float | None
    dynamic: tuple[str, ...]
    notes: tuple[str, ...] = ()
    shapes: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)


@name_nearest_option
def export(
    model: nn.Module | str | Path,
    output: str | Path,
    *,
    to: Form,
    force: bool = False,
    arch: Callable[[], nn.Module] | str | None = None,
    key: str | None = None,
    trust_pickle: bool = False,
    trust_code: TrustCode = (),
    plugins: Plugins | Sequence[str] | None = None,
) -> Export:
    r"""Write a network in a format that loads without surgeon, and check that it does.

    The result is loaded in a process in which surgeon cannot be imported, and its outputs are compared with the
    network's. Nothing is written unless they agree.

    ================  ===============================================  ==========================================
    ``torch-export``  a ``.pt2`` file                                  ``torch.export.load(path).module()``
    ``onnx``          an ``.onnx`` file (needs the extra ``onnx``)     ``onnxruntime.InferenceSession(path)``
    ``state-dict``    a ``.pt`` or ``.pth`` file of tensors by name    ``torch.load(path, weights_only=True)``
    \                 a ``.safetensors`` file of the same              ``safetensors.torch.load_file(path)``
    ``hf``            a folder; of a grafted network, with its code    ``AutoModel….from_pretrained(path)``
    ================  ===============================================  ==========================================

    Args:
        model: A network, an artifact's path, or a model in any form that :func:`surgeon.load` takes.
        output: The path to write; it must not exist unless ``force``.
        to: The format.
        force: Whether to replace what exists.
        arch: What builds the network, if a file does not say.
        key: Which of several state dicts in the file to use.
        trust_pickle: Whether pickles in the file may run code.
        trust_code: Modules named in a manifest that may run.
        plugins: The plugins, or files and modules to load beside the built-in and installed ones (the default).

    Raises:
        ExportError: The network cannot be exported to this format; the error names the site and the reason.
        OutputError: The path exists, cannot be written to, or has a suffix of another format.
        VerificationError: The export cannot be used without surgeon, or its outputs differ.
    """
    output = Path(output)
    _check_form(to, output)
    inputs = [Path(model)] if not isinstance(model, nn.Module) and Path(model).exists() else []
    check_place(output, force=force, inputs=inputs, replaceable=_is_an_export)
    if to == "onnx":
        require("onnx", "--to onnx", ExportError)
    plugins = as_plugins(plugins)
    if isinstance(model, nn.Module):
        network = model
    else:
        network = load(model, arch=arch, key=key, trust_pickle=trust_pickle, trust_code=trust_code, plugins=plugins)
    record = record_of(network)
    call = call_of(network, inspection_of(network, plugins, record.surgeries if record else ()))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with (
            appearing(output, replace=force) as temporary,
            tempfile.TemporaryDirectory(prefix="surgeon-export-") as folder,
        ):
            return _write(to, call, temporary, Path(folder), output, record.companions if record else ())
    except SurgeonError as error:
        note = f"{output} stays as it was" if output.exists() else f"nothing was written to {output}"
        error.hint = f"{error.hint}; {note}" if error.hint else note
        raise
    except FileExistsError as error:
        raise OutputError(f"{output} exists", hint=REPLACE) from error
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror or error}") from error


def _write(form: Form, call: Call, path: Path, folder: Path, output: Path, companions: Sequence[Companion]) -> Export:
    notes = _notes(call) if form in ("torch-export", "onnx") else []
    names = tuple(call.run(call.traced))
    if form == "state-dict":
        return _write_state_dict(call, path, folder, output, names)
    if form == "hf":
        write_folder(call, path)
        write_companions(path, companions)
        notes = [f"beside the weights: {line}"] if (line := summarise(companions)) else []
        notes += [CODE] if (path / MODELING).exists() else []
        cases = list(call.cases(batch=call.batch is not None, length=False))
        difference = check_outputs(form, path, call, cases, folder)
        return Export(output, form, call.names, names, len(cases), difference, (), tuple(notes))
    refused: SurgeonError | None = None
    for dynamic in ways(call):
        try:
            (write_program if form == "torch-export" else write_onnx)(call, path, dynamic)
            cases = list(call.cases(batch=dynamic.batch, length=dynamic.length))
            difference = check_outputs(form, path, call, cases, folder)
        except (ExportError, VerificationError) as error:
            path.unlink(missing_ok=True)
            refused = error
            if dynamic == STATIC:
                raise
            notes = [
                *_notes(call),
                f"a fixed {_fixed(dynamic)}: {error.where + ': ' if error.where else ''}{error.message}",
            ]
            continue
        shapes = call.shapes(dynamic.names)
        return Export(output, form, call.names, names, len(cases), difference, dynamic.names, tuple(notes), shapes)
    raise refused or AssertionError  # the last iteration returns or raises


def _fixed(dynamic: Dynamic) -> str:
    return "number of tokens" if dynamic.length else "batch size"


def _write_state_dict(call: Call, path: Path, folder: Path, output: Path, names: tuple[str, ...]) -> Export:
    """Write tensors and compare them byte for byte; compare the outputs of a traced program that uses them."""
    expected = digests(call)
    write_state_dict_file(call, path)
    cases = [call.traced]
    notes: tuple[str, ...] = ()
    try:
        write_program(call, folder / "program.pt2", STATIC)
        write_inputs("state-dict", call, cases, folder)
    except ExportError as error:
        (folder / "program.pt2").unlink(missing_ok=True)
        where = f"{error.where}: " if error.where else ""
        notes = (f"only tensors were compared, not outputs: {where}{error.message}",)
    run_consumer("state-dict", path, folder)
    if (actual := read_digests(folder)) != expected:
        differing = sorted(name for name in actual.keys() | expected.keys() if actual.get(name) != expected.get(name))
        raise VerificationError(f"it holds other tensors than the network: {', '.join(differing[:3])}")
    if notes:
        return Export(output, "state-dict", (), (), 0, None, (), notes)
    difference = compare_outputs("state-dict", [call.run(case) for case in cases], folder)
    return Export(output, "state-dict", (), names, len(cases), difference, (), ())


def _notes(call: Call) -> list[str]:
    """Return notes about parts of the network that an exported program cannot have."""
    for module in call.network.modules():
        if choices := composite_of(module).choices:
            names = [path.rpartition(".")[2] for path in choices]
            return [f"of the parts {', '.join(names)} it includes {getattr(module, 'active', 'the one that ran')} only"]
    return []


def _check_form(form: str, output: Path) -> None:
    """Refuse an unknown format, and a path that does not match it.

    Raises:
        ExportError: The format is unknown.
        OutputError: The path has another suffix.
    """
    forms = get_args(Form)
    if form not in forms:
        raise ExportError(
            f"{form!r} is not a format", hint=suggest(form, forms) or f"the formats are: {', '.join(forms)}"
        )
    suffixes = SUFFIXES.get(form)
    if suffixes is not None and output.suffix not in suffixes:
        raise OutputError(
            f"{output}: {form} is written to a file that ends in {' or '.join(suffixes)}",
            hint=f"-o {output.with_suffix(suffixes[0])}",
        )
    if suffixes is None and output.suffix in sum(SUFFIXES.values(), ()):
        raise OutputError(f"{output}: {form} is written to a folder", hint=f"-o {output.with_suffix('')}")


def _is_an_export(folder: Path) -> bool:
    companions = {companion.name.partition("/")[0] for companion in read_companions(folder, check=False)}
    return all(WRITTEN.fullmatch(file.name) or file.name in {*companions, BASE_CARD} for file in folder.iterdir())
