"""Nothing is imported that a command does not need: counted in modules, since time depends on the machine."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from surgeon.interfaces.operation import Operation
from surgeon.pipeline.prepare import prepare
from surgeon.surgery.context import Surgery

HEAVY = ("torch", "torchvision", "transformers", "numpy", "safetensors", "accelerate", "sklearn", "huggingface_hub")
"""Libraries that take from a tenth of a second to several to import."""

PUT_OFF = {"torch._dynamo.eval_frame", "torch._inductor.config", "scipy.optimize._optimize"}
"""Parts of the compiler and of scipy's optimisers, which transformers and torchvision import and surgery never uses."""

RUN = """
import os, runpy, sys
sys.argv[0] = "surgeon"
try:
    runpy.run_module("surgeon", run_name="__main__")
finally:
    with open(os.environ["MODULES"], "w") as file:
        print(*sys.modules, file=file)
"""


def modules_of(folder: Path, code: str, *arguments: str, succeeds: bool = True) -> set[str]:
    """The modules that a fresh interpreter has imported at its end."""
    environment = os.environ | {"MODULES": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, cwd=folder
    )
    assert (process.returncode == 0) == succeeds, process.stdout + process.stderr
    return set((folder / "modules").read_text().split())


def surgeon(folder: Path, *arguments: str, succeeds: bool = True) -> set[str]:
    return modules_of(folder, RUN, *arguments, succeeds=succeeds)


def libraries(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules} & set(HEAVY)


@pytest.mark.parametrize(
    "arguments", ["--help", "--version", "apply --help", "ops", "ops truncate", "ops --json", "schema", "plugins"]
)
def test_what_prints_words_imports_no_heavy_library(tmp_path: Path, arguments: str) -> None:
    modules = surgeon(tmp_path, *arguments.split())
    assert not libraries(modules)
    assert not {"surgeon.interfaces.operation", "surgeon.recipe.load"} & modules  # each builds its pydantic models
    if "help" in arguments or "version" in arguments:
        assert "surgeon.cli.render" not in modules


@pytest.mark.parametrize(
    "recipe",
    ["operations: [{op: trunkate}]", "operations: [{op: freeze, upto: stem}]", "operations: [", "", "train: {}"],
)
def test_mistakes_in_a_recipe_are_reported_before_a_heavy_library_is_imported(tmp_path: Path, recipe: str) -> None:
    (tmp_path / "r.yaml").write_text(recipe)
    assert not libraries(surgeon(tmp_path, "apply", "r.yaml", "torchvision/resnet18", succeeds=False))


def test_surgery_on_a_torchvision_network_never_imports_transformers(tmp_path: Path) -> None:
    import torchvision

    torch.save(torchvision.models.squeezenet1_1(num_classes=5).state_dict(), tmp_path / "net.pth")
    (tmp_path / "r.yaml").write_text("operations: [{op: replace_head, classes: 3}, {op: freeze, all_but: head}]")
    modules = surgeon(tmp_path, "apply", "r.yaml", "net.pth", "-o", "out")
    assert libraries(modules) <= {"torch", "torchvision", "numpy"}
    assert not modules & PUT_OFF
    assert "sympy" in modules  # torch's, for the trace that shows that the result runs
    modules = surgeon(tmp_path, "check", "out", "--source", "net.pth")
    assert "transformers" not in modules
    assert not modules & PUT_OFF


def test_surgery_on_a_transformers_network_imports_no_more_of_torchvision_than_transformers_does(
    tmp_path: Path,
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=50,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    (tmp_path / "r.yaml").write_text("operations: [{op: truncate, keep_blocks: 2}]")
    modules = surgeon(tmp_path, "apply", "r.yaml", "llama", "-o", "out")
    # transformers itself imports torchvision where it is installed, for the sake of its image processors.
    plain = (
        "import atexit, os, sys\natexit.register(lambda: print(*sys.modules, file=open(os.environ['MODULES'], 'w')))"
    )
    plain += "\nfrom transformers import LlamaForCausalLM"
    theirs = modules_of(tmp_path, plain)
    of_torchvision = {module for module in modules if module.startswith("torchvision")}
    assert of_torchvision <= theirs
    assert "surgeon.architectures.fingerprints" not in modules
    assert not modules & PUT_OFF
    assert theirs >= PUT_OFF
    assert libraries(modules) <= libraries(theirs) | {"torch", "transformers", "numpy"}


END = """
import atexit, gc, sys, threading
from surgeon.cli import app as cli

class Tell:
    def __del__(self):
        print("taken apart")

def late():
    threading.main_thread().join()
    print("thread")

sys.modules["tell"] = Tell()
threading.Thread(target=late).start()
print(gc.isenabled())
atexit.register(print, "before main")
sys.argv = ["surgeon", *sys.argv[1:]]
real = cli._run
def run(arguments):
    atexit.register(print, "after main")
    print("running", gc.isenabled())
    return real(arguments)
cli._run = run
cli.main()
"""


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["plan", "absent.yaml"], 3), (["nonsense"], 2)])
def test_the_process_ends_with_its_code_and_its_threads_but_is_not_taken_apart(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    process = subprocess.run([sys.executable, "-c", END, *arguments], capture_output=True, text=True, cwd=tmp_path)
    lines = process.stdout.splitlines()
    assert process.returncode == code, process.stderr
    assert lines[-2:] == ["thread", "after main"]
    assert "taken apart" not in lines
    assert f"running {arguments[0] != 'plan'}" in lines


def test_the_collector_rests_while_a_network_is_built_and_is_left_as_it_was() -> None:
    seen = []

    class Look(Operation):
        """Look whether the collector is at work."""

        def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
            seen.append(gc.isenabled())
            return model

    prepare(nn.Sequential(nn.Linear(2, 2)), [Look()], inputs={"shape": [1, 2]})
    assert gc.isenabled()
    gc.disable()
    try:
        prepare(nn.Sequential(nn.Linear(2, 2)), [Look()], inputs={"shape": [1, 2]})
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert seen == [False, False]
