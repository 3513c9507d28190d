"""Open mutants of checkpoints, and compare what is read with the reference reader of each format.

    python tests/faults/file_fuzz.py --mutants 10000          # all formats, as long as it takes
    python tests/faults/file_fuzz.py --format zip --first 4711 --mutants 1   # one of them again

A mutant with a fault is kept in the folder ``surgeon-mutants`` for temporary files.

A mutant must end in a SurgeonError or in what ``torch.load(weights_only=True)`` (``safetensors``) reads too;
within ten seconds and 500 MB. Each run of mutants has a process of its own, which is started again behind a
mutant that kills it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faults.file_mutants import mutant

SECONDS = 10
MEGABYTES = 500
FORMATS = ("zip", "legacy", "safetensors")
BESIDE = re.compile(
    r"Storage size calculation overflowed|Trying to resize storage"
    r"|^ValueError: invalid literal for int\(\) with base 10: b|zip_file\.serialization_id\(\)"
)
"""How torch refuses what surgeon does not look at: a tensor outside of the chosen state dict that has a stride
below 0 or reaches beyond its storage, an alignment that is not a number, a serialization id that is not text."""

KEPT = Path(tempfile.gettempdir()) / "surgeon-mutants"
REPOSITORY = Path(__file__).resolve().parents[2]


class HangError(BaseException):
    """Raised into whatever takes longer than it may; no ``except Exception`` swallows it."""


def fuzz(form: str, first: int, count: int) -> tuple[Counter[str], list[str]]:
    """Try the mutants ``first`` to ``first + count - 1`` of a format.

    Returns:
        How many ended in which way, and one line for each fault.
    """
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    at, end = first, first + count
    while at < end:
        KEPT.mkdir(exist_ok=True)
        command = [
            sys.executable,
            __file__,
            "--worker",
            "--format",
            form,
            "--first",
            str(at),
            "--mutants",
            str(end - at),
        ]
        paths = [str(REPOSITORY), str(REPOSITORY / "tests"), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
        run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        for line in run.stdout.splitlines():
            number, outcome, detail = json.loads(line)
            at = number + 1
            outcomes[outcome] += 1
            if outcome.startswith("FAULT"):
                faults.append(f"{form} {number}: {outcome}: {detail}")
        if run.returncode:
            # Behind the last line lies the mutant that killed the process, in surgeon or in the reference.
            if "reference" not in run.stderr.rpartition("@")[2]:
                (KEPT / f"{form}-{at}").write_bytes(mutant(form, at))
                faults.append(f"{form} {at}: FAULT killed: {run.returncode}: {run.stderr[-600:]}")
                outcomes["FAULT killed"] += 1
            else:
                outcomes["reference killed"] += 1
            at += 1
    return outcomes, faults


def work(form: str, first: int, count: int) -> None:
    """Try mutants in this process, and print a line of JSON for each."""
    faulthandler.enable()
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGALRM, _hang)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mutant"
        path.write_bytes(mutant(form, 0))
        _surgeon(path), _reference(form, path)  # imports what it takes
        for number in range(first, first + count):
            path.write_bytes(mutant(form, number))
            before = _peak()
            print(f"@{number} surgeon", file=sys.stderr, flush=True)
            outcome, detail, read = _limited(lambda: _surgeon(path))
            grown = _peak() - before
            if grown > MEGABYTES:
                outcome, detail = "FAULT memory", f"{grown} MB"
            if read is not None:
                print(f"@{number} reference", file=sys.stderr, flush=True)
                kind, detail, reference = _limited(lambda: _reference(form, path))
                if kind == "read":
                    detail = _difference(*read, reference)
                    outcome = "FAULT differs" if detail else "read as the reference"
                elif BESIDE.search(detail):
                    outcome = "read, the reference refuses what is beside it"
                else:
                    outcome = "FAULT reference refuses"
            if outcome.startswith("FAULT"):
                shutil.copy(path, KEPT / f"{form}-{number}")
            print(json.dumps([number, outcome, detail]), flush=True)


def _hang(*_: Any) -> None:
    raise HangError


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def _limited(function: Any) -> tuple[str, str, Any]:
    from surgeon.errors import SurgeonError

    signal.alarm(SECONDS)
    try:
        return "read", "", function()
    except SurgeonError as error:
        if "\n" in error.message or not error.hint or not error.where:
            return "FAULT message", repr(str(error)), None
        return "refused", error.message, None
    except HangError:
        return "FAULT hang", f"more than {SECONDS} s", None
    except BaseException as error:
        return "FAULT traceback", f"{type(error).__name__}: {error} {traceback.format_exc()[-700:]}", None
    finally:
        signal.alarm(0)


def _surgeon(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from surgeon.checkpoint.formats import open_checkpoint

    checkpoint = open_checkpoint(path)
    tensors = {name: checkpoint.read(name) for name in checkpoint.entries}
    for name, entry in checkpoint.entries.items():
        assert (entry.dtype, entry.shape) == (tensors[name].dtype, tuple(tensors[name].shape)), name
    return tensors, checkpoint.aliases


def _reference(form: str, path: Path) -> Any:
    import safetensors.torch
    import torch

    if form == "safetensors":
        return safetensors.torch.load(path.read_bytes())
    with path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)


def _difference(tensors: dict[str, Any], aliases: dict[str, str], reference: Any) -> str:
    """What surgeon reads and the reference does not; where state dicts are nested, names are compared by their end."""
    expected: dict[str, list[Any]] = {}
    for name, tensor in _leaves(reference):
        expected.setdefault(name, []).append(tensor)
    for name, tensor in tensors.items():
        candidates = [t for end, group in expected.items() if end == name or end.endswith(f".{name}") for t in group]
        candidates = candidates or expected.get(aliases.get(name, name), [])
        if not any(_same(tensor, candidate) for candidate in candidates):
            return f"{name}: {tensor.flatten()[:4]} against {[c.flatten()[:4] for c in candidates]}"
    return ""


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    import torch

    if isinstance(value, Mapping):
        for name, item in value.items():
            if isinstance(item, torch.Tensor):
                yield str(name), item
            else:
                yield from _leaves(item)


def _same(one: Any, other: Any) -> bool:
    import torch

    if one.dtype != other.dtype or one.shape != other.shape or one.layout != other.layout:
        return False
    if one.layout is not torch.strided:
        one, other = one.to_dense(), other.to_dense()
    raw = [tensor.detach().contiguous().resolve_conj().resolve_neg().reshape(-1) for tensor in (one, other)]
    return not one.numel() or bool(torch.equal(*(tensor.view(torch.uint8) for tensor in raw)))


def main() -> int:
    """Fuzz from the command line; the exit status says whether there were faults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--format", choices=FORMATS, action="append")
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    forms = options.format or FORMATS
    if options.worker:
        work(forms[0], options.first, options.mutants)
        return 0
    failed = False
    for form in forms:
        outcomes, faults = fuzz(form, options.first, options.mutants)
        print(form, dict(outcomes))
        print(*faults, sep="\n")
        failed = failed or bool(faults)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
