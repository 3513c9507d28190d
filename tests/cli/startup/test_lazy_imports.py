"""What is put off is the real thing as soon as it is used; each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from surgeon.cli.startup import lazy_imports

START = """
import sys
from surgeon.cli.startup.lazy_imports import defer
defer()
defer()
import torch, torchvision
assert "torch._dynamo.eval_frame" not in sys.modules, "the compiler is there too early"
assert type(torch._dynamo).__name__ == "Deferred"
before = torch._dynamo
"""

COMPILED = """
torch.manual_seed(0)
model = torchvision.models.shufflenet_v2_x0_5(num_classes=3).eval()
x = torch.randn(1, 3, 32, 32)
counted = torch._dynamo.testing.CompileCounter()
compiled = torch.compile(model, backend=counted, fullgraph=True)
assert torch.equal(compiled(x), model(x)) and counted.frame_count == 1
"""

PARTS = {
    "a function of it": "torch._dynamo.reset(); import torch._dynamo.testing" + COMPILED,
    "a name of a part": "from torch._dynamo.utils import counters",
    "a part": "import torch._dynamo.eval_frame",
}


@pytest.mark.parametrize("use", PARTS.values(), ids=PARTS)
def test_the_compiler_is_whole_once_any_part_of_it_is_used(use: str) -> None:
    checks = """
torchvision.ops.roi_align.__globals__["is_compile_supported"]("cpu")
import torch._dynamo, torch._dynamo.utils, torch._dynamo.eval_frame
assert torch._dynamo is before is sys.modules["torch._dynamo"]
assert type(before).__name__ == type(torch._dynamo.utils).__name__ == "module"
assert torch._dynamo.disable is torch._dynamo.decorators.disable
assert torch._dynamo.utils.is_compile_supported.__module__ == "torch._dynamo.utils"
assert torch._dynamo.eval_frame.__spec__.name == "torch._dynamo.eval_frame"
"""
    assert_runs(START + use + checks)


def test_optimisers_are_imported_when_one_is_called() -> None:
    assert_runs(
        """
import sys
from surgeon.cli.startup.lazy_imports import defer
defer()
import scipy
from scipy.optimize import linear_sum_assignment
assert "scipy.optimize._optimize" not in sys.modules
rows, columns = linear_sum_assignment([[1, 2], [2, 5]])
assert columns.tolist() == [1, 0] and "scipy.optimize._optimize" in sys.modules
assert scipy.optimize.linear_sum_assignment.__module__ != "surgeon.cli.startup.lazy_imports"
import scipy.optimize._linprog
"""
    )


def test_what_is_imported_already_stays_as_it_is() -> None:
    assert_runs(
        """
import scipy.optimize
from surgeon.cli.startup.lazy_imports import defer
real = scipy.optimize.minimize
defer()
from scipy.optimize import minimize
assert minimize is real
"""
    )


FURTHER = [pytest.param(release, marks=pytest.mark.slow) for release in ("2.15.0", "3.0", "nonsense")]


@pytest.mark.parametrize("release", ["2.15.0a0+git1234", *FURTHER])
def test_with_a_torch_newer_than_it_was_tried_with_nothing_is_put_off(release: str) -> None:
    newer = f"""
import importlib.metadata
real = importlib.metadata.version
importlib.metadata.version = lambda name: {release!r} if name in ("torch", "scipy") else real(name)
"""
    assert_runs(
        newer
        + """
import sys
from surgeon.cli.startup import lazy_imports
before = list(sys.meta_path)
lazy_imports.defer()
assert sys.meta_path == before
import scipy.optimize, torch, torchvision
assert "torch._dynamo.eval_frame" in sys.modules
assert type(scipy.optimize).__name__ == "module"
assert type(torch._dynamo).__name__ == type(torch._dynamo.utils).__name__ == "module"
"""
    )


def test_a_command_runs_with_a_torch_newer_than_it_was_tried_with(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("operations: [{op: replace_head, classes: 3}]")
    code = """
import importlib.metadata, sys
real = importlib.metadata.version
importlib.metadata.version = lambda name: "99.0" if name in ("torch", "scipy") else real(name)
from surgeon.cli.app import run
code = run(["plan", "r.yaml", "torchvision/squeezenet1_1"])
assert "torch._dynamo.eval_frame" in sys.modules
sys.exit(code)
"""
    assert_runs(code, tmp_path)


@pytest.mark.parametrize("library", lazy_imports.NEWEST)
def test_the_installed_libraries_are_ones_that_it_was_tried_with(library: str) -> None:
    assert lazy_imports.is_tried(library), f"raise NEWEST[{library!r}] and see that the tests of this file pass"


def assert_runs(code: str, folder: Path | None = None) -> None:
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert process.returncode == 0, process.stderr
