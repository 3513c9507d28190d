"""Check that what operations make does not depend on the order of sets, which differs from process to process."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from functools import partial
from multiprocessing.pool import ThreadPool

from torch import nn

from surgeon.testing.runs import SEED, Case

HASH_SEEDS = ("1", "2")
_CHILD = "from surgeon.testing.hash_seeds import main; main()"


def check_hash_seeds(case: Case) -> None:
    """Apply the operations in processes with other hash seeds, and compare names, order and values of all tensors.

    Nothing is checked where another process cannot find the operations or the function that builds the network, because
    they are defined inside a function, or where that function makes another network on each call.

    Raises:
        AssertionError: The results differ.
    """
    try:
        task = pickle.dumps((sys.path, case.build, list(case.operations)))
    except Exception:  # a lambda, or a class inside a function
        return
    if digest_of(case.build()) != digest_of(case.original):
        return
    expected = digest_of(case.edited)
    with ThreadPool(len(HASH_SEEDS)) as pool:  # a child takes seconds to import torch
        children = pool.map(partial(_in_child, task), HASH_SEEDS)
    for child in children:
        if child.returncode:
            return  # the module that defines them cannot be imported there
        if child.stdout.decode().split()[-1:] != [expected]:
            raise AssertionError(
                f"{case.names} gives another network in another process: it depends on the order of a set, or on "
                "hash(). Sort sets before you go through them, or use dict.fromkeys."
            )


def _in_child(task: bytes, seed: str) -> subprocess.CompletedProcess[bytes]:
    """Apply the pickled operations in another process, which prints the digest of the result."""
    return subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=task,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )


def digest_of(model: nn.Module) -> str:
    """Digest names, order and values of a network's tensors."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    """Apply the operations that stand on the standard input, and print the digest of the result."""
    from surgeon.interfaces.registered import registered
    from surgeon.interfaces.returned import is_ours
    from surgeon.pipeline.api import apply

    _, build, operations = pickle.load(sys.stdin.buffer)
    with registered(*{type(operation): None for operation in operations if not is_ours(operation)}):
        print(digest_of(apply(build().eval(), operations, seed=SEED)))
