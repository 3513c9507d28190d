"""The command line on real files: what it prints, what it leaves behind, and how it fails."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision

import surgeon
from surgeon.checkpoint.digests import BLANK, LENGTH, digest_of, place_in
from surgeon.cli import app as cli

RECIPE = """\
operations:
  - op: freeze
    up_to: stage2
  - op: replace_head
    classes: [five, six, seven]
"""
DIGITS = "{source: digits, classes: [5, 6, 7], per_class: 4, size: 32, test_fraction: 0.1}"
TRAIN = f"train: {{data: {DIGITS}, epochs: 1, baseline: scratch}}\n"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    torch.save(torchvision.models.shufflenet_v2_x0_5(num_classes=5).state_dict(), path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in, with two recipes."""
    (tmp_path / "cut.yaml").write_text(RECIPE)
    (tmp_path / "train.yaml").write_text(RECIPE + TRAIN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command; returns its exit code, stdout and stderr."""

    def command(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        return code, *capfd.readouterr()

    return command


Run = Callable[..., tuple[int, str, str]]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "command", ["--help", "", "ops", "ops freeze", "schema", "schema table", "plugins", "--version"]
)
def test_what_only_tells_imports_neither_torch_nor_transformers(command: str) -> None:
    code = f"import sys; from surgeon import cli; cli.run({command.split()!r}); print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    modules = result.stderr.split()
    assert "surgeon" in modules
    assert not {"torch", "torchvision", "transformers", "sklearn"} & set(modules)
    assert result.stdout


def test_a_wrong_recipe_is_reported_before_torch_is_imported(here: Path) -> None:
    (here / "bad.yaml").write_text("operations: []")
    code = (
        "import sys; from surgeon import cli; c = cli.run(['apply', 'bad.yaml', 'net.pt']);"
        "sys.exit(99 if 'torch' in sys.modules else c)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 3


def test_python_dash_m_runs_the_command_line() -> None:
    result = subprocess.run([sys.executable, "-m", "surgeon", "--version"], capture_output=True, text=True)
    assert result.stdout == f"surgeon {surgeon.__version__}\n"


def test_public_names_are_all_there() -> None:
    assert set(surgeon.__all__) <= set(dir(surgeon))
    assert all(getattr(surgeon, name) is not None for name in surgeon.__all__)
    with pytest.raises(AttributeError, match="'surgeon' has no attribute 'aply'"):
        _ = surgeon.aply  # type: ignore[attr-defined]


def test_no_module_hides_a_public_function() -> None:
    modules = {path.stem for path in Path(surgeon.__file__).parent.iterdir()}
    assert not modules & set(surgeon.__all__)


def test_plan_shows_the_diff_and_writes_nothing(here: Path, checkpoint: Path, run: Run) -> None:
    before = sorted(here.rglob("*"))
    code, out, _ = run("plan", "cut.yaml", checkpoint)
    assert code == 0
    assert "1  freeze  up_to='stage2'" in out
    assert "+ fc" in out
    assert "336 of 338 tensors kept, 2 new by replace_head" in out
    assert sorted(here.rglob("*")) == before


def test_plan_as_json_holds_every_tensor(here: Path, checkpoint: Path, run: Run) -> None:
    code, out, _ = run("plan", "cut.yaml", checkpoint, "--json")
    plan = json.loads(out)
    assert code == 0
    assert len(plan["tensors"]) == 338
    assert plan["outputs"]


def test_apply_writes_an_artifact_that_loads_and_leaves_its_input_alone(here: Path, checkpoint: Path, run: Run) -> None:
    before = digest(checkpoint)
    code, out, _ = run("apply", "cut.yaml", checkpoint)
    assert code == 0
    assert 'surgeon.load("out/cut")' in out
    assert digest(checkpoint) == before
    assert (here / "out/cut/recipe.yaml").read_text() == RECIPE
    model = surgeon.load("out/cut")
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("output", ["net.safetensors", "net2.pt", "folder/", "deep/er/folder"])
def test_apply_writes_to_the_path_given(here: Path, checkpoint: Path, run: Run, output: str) -> None:
    assert run("apply", "cut.yaml", checkpoint, "-o", output, "--quiet") == (0, "", "")
    assert surgeon.load(here / output).fc.out_features == 3
    assert run("check", here / output, "--source", checkpoint)[0] == 0


def test_the_same_input_recipe_and_seed_give_the_same_bytes(here: Path, checkpoint: Path, run: Run) -> None:
    for name in ("a", "b"):
        assert run("apply", "cut.yaml", checkpoint, "-o", name)[0] == 0
    assert run("apply", "cut.yaml", checkpoint, "-o", "c", "--seed", 1)[0] == 0
    for file in sorted((here / "a").iterdir()):
        assert digest(file) == digest(here / "b" / file.name), file.name
    assert digest(here / "a/model.safetensors") != digest(here / "c/model.safetensors")


def test_apply_trains_where_the_recipe_says_so_and_prints_all_three_scores(
    here: Path, checkpoint: Path, run: Run
) -> None:
    code, out, _ = run("apply", "train.yaml", checkpoint)
    assert code == 0
    for line in ("before training", "after training", "from scratch", "saved to out/train"):
        assert line in out
    assert len(surgeon.record_of(surgeon.load("out/train")).training) == 1
    assert run("check", "out/train", "--source", checkpoint)[0] == 0


def test_no_train_leaves_the_training_out(here: Path, checkpoint: Path, run: Run) -> None:
    code, out, _ = run("apply", "train.yaml", checkpoint, "--no-train", "--json")
    assert code == 0
    assert json.loads(out)["training"] is None
    assert json.loads(out)["output"] == "out/train"


def test_what_lies_at_the_output_is_replaced_only_by_force(here: Path, checkpoint: Path, run: Run) -> None:
    assert run("apply", "cut.yaml", checkpoint)[0] == 0
    before = digest(here / "out/cut/model.safetensors")
    code, _, err = run("apply", "cut.yaml", checkpoint, "--seed", 5)
    assert (code, err) == (8, "error: out/cut exists\n    --force replaces it; -o names another place\n")
    assert digest(here / "out/cut/model.safetensors") == before
    assert run("apply", "cut.yaml", checkpoint, "--seed", 5, "--force")[0] == 0
    assert digest(here / "out/cut/model.safetensors") != before


def test_the_output_is_checked_before_the_model_is_opened(here: Path, run: Run) -> None:
    (here / "taken").mkdir()
    code, _, err = run("apply", "cut.yaml", "absent.pt", "-o", "taken")
    assert code == 8
    assert "taken exists" in err


def test_the_input_is_never_the_output(here: Path, checkpoint: Path, run: Run) -> None:
    before = digest(checkpoint)
    code, _, err = run("apply", "cut.yaml", checkpoint, "-o", checkpoint, "--force")
    assert code == 8
    assert "input" in err
    assert digest(checkpoint) == before


def test_set_overrides_the_recipe(here: Path, checkpoint: Path, run: Run) -> None:
    assert run("apply", "cut.yaml", checkpoint, "--set", "operations.1.classes=7", "-q")[0] == 0
    assert surgeon.load("out/cut").fc.out_features == 7


def test_an_operations_error_is_one_line_with_its_place_in_the_recipe(here: Path, checkpoint: Path, run: Run) -> None:
    (here / "bad.yaml").write_text("operations:\n  - op: truncate\n    after: stage22\n")
    code, out, err = run("apply", "bad.yaml", checkpoint)
    assert code == 6
    assert err.startswith("bad.yaml:2:5: truncate: ")
    assert "stage2" in err.splitlines()[-1]
    assert "Traceback" not in out + err
    assert not (here / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["apply"], 2, "Missing argument"),
        (["aply"], 2, "No such command 'aply'"),
        (["apply", "cut.yaml", "x.pt", "--sed", "1"], 2, "No such option"),
        (["predict", "x.pt", "--part", "tset"], 2, "'test'\n    nearest: test     see: surgeon predict --help"),
        (["export", "x.pt", "-o", "y", "--to", "onx"], 2, "nearest: onnx"),
        (["apply", "cut.yaml"], 3, "no model is given"),
        (["apply", "absent.yaml", "x.pt"], 3, "no such file"),
        (["plan", "cut.yaml", "absent.pt"], 4, "absent.pt"),
        (["plan", "cut.yaml", "torchvision/resnet17"], 5, "resnet18"),
        (["ops", "freez"], 6, "nearest: freeze"),
        (["ops", "--plugin", "absent.py"], 7, "absent.py"),
        (["schema", "-o", "no/such/folder/x.json"], 8, "no/such/folder"),
        (["check", "absent"], 4, "absent"),
    ],
)
def test_every_failure_is_a_line_or_two_with_its_own_exit_code(
    here: Path, run: Run, arguments: list[str], code: int, words: str
) -> None:
    exit_code, out, err = run(*arguments)
    assert (exit_code, out) == (code, "")
    assert words in err
    assert len(err.splitlines()) <= 3
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("train", "place", "words"),
    [
        ("{data: {source: digits}, arguments: {weight_decai: 0.1}}", "6:45", "nearest: weight_decay"),
        ("{data: {source: digits}, arguments: {num_train_epochs: 3}}", "6:45", "use train.epochs"),
        ("{data: {source: digits}, arguments: {lr_scheduler_type: steep}}", "6:33", "refuses the settings"),
        ("{data: {source: digits}, epochs: 2, arguments: {max_steps: 3}}", "6:56", "exclude each other"),
        ("{data: {source: digits}, objectives: [{output: a, loss: hubert}]}", "6:58", "nearest: huber"),
        ("{data: {source: digits, per_class: 500}}", "6:9", "at most"),
        ("{epochs: 2}", "6:1", "needs the key 'data'"),
    ],
)
def test_what_training_would_refuse_is_reported_before_the_model_is_opened(
    here: Path, run: Run, train: str, place: str, words: str
) -> None:
    (here / "bad.yaml").write_text(f"{RECIPE}train: {train}\n")
    code, out, err = run("apply", "bad.yaml", "absent.pt")
    assert (code, out) == (3, "")
    assert err.startswith(f"bad.yaml:{place}: train")
    assert words in err
    assert run("apply", "bad.yaml", "absent.pt", "--no-train")[0] == 4


def test_a_plan_checks_the_names_in_train_but_not_whether_this_machine_has_a_gpu(
    here: Path, checkpoint: Path, run: Run
) -> None:
    text = RECIPE + "train: {data: {source: digits}, arguments: {fp16: true, tf32: true, warmup: 1, weight_decai: 0}}\n"
    (here / "bad.yaml").write_text(text)
    code, _, err = run("plan", "bad.yaml", "absent.pt")
    assert code == 3
    assert [line.split(": ")[1] for line in err.splitlines() if line.startswith("bad.yaml")] == [
        "train.arguments.warmup", "train.arguments.weight_decai",
    ]  # fmt: skip
    (here / "bad.yaml").write_text(text.replace(", warmup: 1, weight_decai: 0", ""))
    assert run("plan", "bad.yaml", checkpoint)[0] == 0


def test_an_unknown_loss_is_reported_at_the_operation_that_requests_it(here: Path, run: Run) -> None:
    text = "operations:\n  - {op: multitask, tasks: {a: {classes: 2, loss: hubert}}}\n"
    (here / "bad.yaml").write_text(text + "train: {data: {source: digits}}\n")
    code, _, err = run("plan", "bad.yaml", "absent.pt")
    assert code == 3
    assert err.startswith("bad.yaml:2:5: operations.0: unknown loss 'hubert'")


def test_with_json_an_error_is_json_too(here: Path, run: Run) -> None:
    (here / "bad.yaml").write_text("sed: 1\noperations: []\n")
    code, out, err = run("plan", "bad.yaml", "x.pt", "--json")
    error = json.loads(out)["error"]
    assert code == error["exit_code"] == 3
    assert [problem["where"] for problem in error["problems"]] == ["bad.yaml:1:1", "bad.yaml:2:1"]
    assert "sed: unknown key" in err


def test_debug_shows_the_traceback(here: Path, run: Run) -> None:
    _, _, err = run("plan", "cut.yaml", "absent.pt", "--debug")
    assert "Traceback (most recent call last)" in err


PLUGIN = """
from surgeon import Operation, hookimpl

class Explode(Operation):
    \"\"\"Raise.\"\"\"

    def apply(self, model, surgery):
        raise RuntimeError("boom")

@hookimpl
def surgeon_operations():
    return [Explode]

@hookimpl
def surgeon_commands(app):
    @app.command()
    def hello(name: str = "you") -> None:
        print("hello", name)

    @app.command()
    def crash() -> None:
        raise RuntimeError("boom")

    @app.command()
    def interrupt() -> None:
        raise KeyboardInterrupt
"""


@pytest.fixture
def plugin(here: Path) -> str:
    (here / "mine.py").write_text(PLUGIN)
    return "mine.py"


def test_a_plugin_file_adds_operations(plugin: str, run: Run) -> None:
    assert "explode" in run("ops", "--plugin", plugin)[1]
    assert "mine.py" in run("plugins", f"--plugin={plugin}")[1]
    assert "explode" not in run("ops")[1]


def test_a_plugins_operation_that_raises_is_named_and_nothing_is_written(
    here: Path, checkpoint: Path, plugin: str, run: Run
) -> None:
    (here / "bad.yaml").write_text("operations:\n  - op: explode\n")
    code, _, err = run("apply", "bad.yaml", checkpoint, "--plugin", plugin)
    assert code == 7
    assert "explode" in err
    assert "RuntimeError: boom" in err
    assert not (here / "out").exists()


def installed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = here / "mine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[surgeon]\nmy_plugin = mine\n")
    monkeypatch.syspath_prepend(str(here))
    monkeypatch.delitem(sys.modules, "mine", raising=False)


def test_an_installed_plugins_commands_run_and_its_bugs_bear_its_name(
    here: Path, plugin: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(here, monkeypatch)
    assert run("hello", "--name", "world") == (0, "hello world\n", "")
    code, _, err = run("crash")
    assert code == 1
    assert err.startswith("error: this is a bug in the plugin 'my_plugin': RuntimeError: boom")
    assert "Traceback" not in err
    assert run("interrupt")[0] == 130


def test_inspect_shows_roles_and_shapes(checkpoint: Path, run: Run) -> None:
    code, out, _ = run("inspect", checkpoint)
    assert code == 0
    assert any(line.startswith("fc ") and line.endswith("@head") for line in out.splitlines())
    assert "2 × 48 × 28 × 28" in out


def test_inspect_lists_what_a_selector_names(checkpoint: Path, run: Run) -> None:
    _, out, _ = run("inspect", checkpoint, "--select", "stage2.*, !stage2.0")
    assert [line.split()[0] for line in out.splitlines()[1:-1]] == ["stage2.1", "stage2.2", "stage2.3"]
    code, _, err = run("inspect", checkpoint, "--select", "stage9")
    assert code == 6
    assert "stage" in err
    sites = json.loads(run("inspect", checkpoint, "--select", "@head", "--json")[1])["sites"]
    assert [site["site"] for site in sites] == ["fc"]


def test_check_finds_a_changed_frozen_tensor(here: Path, checkpoint: Path, run: Run) -> None:
    assert run("apply", "cut.yaml", checkpoint, "-o", "net.safetensors", "-q")[0] == 0
    data = bytearray((here / "net.safetensors").read_bytes())
    length = int.from_bytes(data[:8], "little")
    start, _ = json.loads(data[8 : 8 + length])["conv1.0.weight"]["data_offsets"]
    data[8 + length + start] ^= 1
    at = 8 + place_in(bytes(data[8 : 8 + length]))  # the digest, recomputed as if the file had been written so
    data[at : at + LENGTH] = digest_of(bytes(data[:at]) + BLANK.encode() + bytes(data[at + LENGTH :])).encode()
    (here / "net.safetensors").write_bytes(data)
    code, _, err = run("check", "net.safetensors", "--source", checkpoint)
    assert (code, "conv1.0.weight" in err) == (10, True)
