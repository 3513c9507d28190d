"""What changes in an artifact after it was written is noticed."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
import torch
from families import bert
from torchvision import models

import surgeon
from surgeon.checkpoint.digests import sealed
from surgeon.cli.app import run
from surgeon.errors import CheckpointError, SurgeonError, VerificationError

FLIPS = 30
OLD = Path(__file__).parent / "old_artifacts"
FORMS = ["net", "net.safetensors", "net.pt"]


def network() -> torch.nn.Module:
    """A cut SqueezeNet of 50 kB, in eval mode."""
    torch.manual_seed(0)
    operations = [surgeon.Truncate(after="features.3"), surgeon.ReplaceHead(classes=["a", "b"])]
    return surgeon.apply(models.squeezenet1_1(), operations).eval()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network in every form."""
    folder = tmp_path_factory.mktemp("written")
    model = network()
    for form in FORMS:
        surgeon.save(model, folder / form)
    return folder


def flips(file: Path, start: int, end: int, count: int = FLIPS) -> list[bytes]:
    """The contents of a file with one bit turned over, at places drawn between two."""
    data, draw = file.read_bytes(), random.Random(0)
    contents = []
    for _ in range(count):
        changed = bytearray(data)
        changed[draw.randrange(start, end)] ^= 1 << draw.randrange(8)
        contents.append(bytes(changed))
    return contents


def unnoticed(artifact: Path, file: Path, contents: list[bytes]) -> int:
    """How many of ``contents`` pass for an unchanged file."""
    original, passed = file.read_bytes(), 0
    for changed in contents:
        file.write_bytes(changed)
        try:
            surgeon.verify(artifact)
            passed += 1
        except SurgeonError:
            continue
        finally:
            file.write_bytes(original)
    return passed


@pytest.mark.parametrize("form", FORMS)
def test_what_was_written_passes(written: Path, form: str) -> None:
    assert surgeon.verify(written / form).digests >= 1
    assert surgeon.load(written / form, verify=True) is not None


@pytest.mark.parametrize("name", ["model.safetensors", "surgeon.json", "recipe.yaml"])
def test_every_flipped_bit_in_a_folder_is_noticed(written: Path, name: str) -> None:
    file = written / "net" / name
    assert unnoticed(written / "net", file, flips(file, 0, file.stat().st_size)) == 0


@pytest.mark.parametrize("form", ["net.safetensors", "net.pt"])
def test_every_flipped_bit_in_a_single_file_is_noticed(written: Path, form: str) -> None:
    file = written / form
    end = file.stat().st_size
    parts = [(0, end)]
    if form.endswith(".pt"):
        # The archive's own directory says nothing of values, nor do the header and the descriptor of its last record,
        # the digest: they repeat what the directory says.
        data = file.read_bytes()
        directory = data.index(b"PK\1\2")
        header = data.rindex(b"PK\3\4", 0, directory)
        name, extra = struct.unpack("<HH", data[header + 26 : header + 30])
        parts = [(0, header), (header + 30 + name + extra, data.rindex(b"PK\7\x08", 0, directory))]
        assert b"digest" in data[header : parts[1][0]]
    for start, end in parts:
        assert unnoticed(file, file, flips(file, start, end)) == 0


def test_check_names_the_file_that_has_changed(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written / "net" / "model.safetensors"
    original = file.read_bytes()
    file.write_bytes(flips(file, 5000, 6000, 1)[0])
    assert run(["check", str(written / "net")]) == VerificationError.exit_code
    file.write_bytes(original)
    err = " ".join(capsys.readouterr().err.split())
    assert "model.safetensors: has changed since it was written" in err


def test_load_always_checks_the_small_files_and_all_of_them_on_request(tmp_path: Path) -> None:
    surgeon.save(network(), tmp_path / "net")
    weights, recipe = tmp_path / "net" / "model.safetensors", tmp_path / "net" / "recipe.yaml"
    weights.write_bytes(flips(weights, 5000, 6000, 1)[0])
    surgeon.load(tmp_path / "net")
    with pytest.raises(VerificationError, match=r"model\.safetensors"):
        surgeon.load(tmp_path / "net", verify=True)
    recipe.write_text(recipe.read_text() + "# another\n")
    with pytest.raises(VerificationError, match=r"recipe\.yaml"):
        surgeon.load(tmp_path / "net")


def test_a_recipe_that_is_not_the_manifests_is_noticed_though_its_digest_fits(tmp_path: Path) -> None:
    surgeon.save(network(), tmp_path / "net")
    from surgeon.checkpoint.digests import digest_of

    text = b"operations: []\n"
    (tmp_path / "net" / "recipe.yaml").write_bytes(text)
    manifest = json.loads((tmp_path / "net" / "surgeon.json").read_text())
    manifest["files"]["recipe.yaml"] = {"bytes": len(text), "xxh3": digest_of(text)}
    (tmp_path / "net" / "surgeon.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(VerificationError, match="not the recipe that the manifest holds"):
        surgeon.verify(tmp_path / "net")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("outputs", "inputs", "args"), {}),
        (("outputs", "inputs", "args", "tuple"), [{}]),
        (("frozen",), [None, None]),
        (("frozen",), [[]]),
        (("frozen",), "fc"),
        (("aliases",), ["a"]),
        (("companions",), {"LICENSE": 3}),
        (("files",), None),
        (("files",), ["recipe.yaml"]),
        (("files", "model.safetensors", "xxh3"), ...),
        (("files", "model.safetensors", "bytes"), "1"),
        (("files", "recipe.yaml"), 3),
    ],
)
def test_what_is_no_name_or_argument_in_a_manifest_is_its_damage(
    tmp_path: Path, path: tuple[str, ...], value: object
) -> None:
    surgeon.save(network(), tmp_path / "net")
    manifest = json.loads((tmp_path / "net" / "surgeon.json").read_text())
    inner = manifest
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    (tmp_path / "net" / "surgeon.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(CheckpointError, match=f"its manifest is damaged: {path[0]}"):
        surgeon.verify(tmp_path / "net")


def test_other_frozen_parameters_than_the_manifest_lists_are_noticed(tmp_path: Path) -> None:
    surgeon.save(network(), tmp_path / "net")
    manifest = json.loads((tmp_path / "net" / "surgeon.json").read_text())
    manifest["frozen"] = ["features.0.weight"]
    (tmp_path / "net" / "surgeon.json").write_text(json.dumps(sealed(manifest)))
    with pytest.raises(VerificationError, match="other frozen parameters"):
        surgeon.verify(tmp_path / "net")


@pytest.mark.parametrize("form", FORMS)
def test_the_same_network_gives_the_same_bytes(written: Path, tmp_path: Path, form: str) -> None:
    surgeon.save(network(), tmp_path / form)
    for file in sorted(tmp_path.rglob("*.*")):
        if file.is_file():
            assert file.read_bytes() == (written / file.relative_to(tmp_path)).read_bytes(), file.name


@pytest.mark.parametrize("form", FORMS[1:])
def test_other_readers_take_a_single_file_with_its_digest(written: Path, form: str) -> None:
    from safetensors.torch import load_file

    state = load_file(written / form) if form.endswith("safetensors") else torch.load(written / form)
    assert set(state) == set(network().state_dict())


def test_a_folder_of_shards_is_checked_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("surgeon.checkpoint.artifact.SHARD_BYTES", 20_000)
    surgeon.save(bert(), tmp_path / "net")
    shards = sorted((tmp_path / "net").glob("model-*.safetensors"))
    assert len(shards) > 1
    files = len(list((tmp_path / "net").iterdir())) - 1
    if not surgeon.record_of(surgeon.load(tmp_path / "net", verify=True)).surgeries:
        shards[-1].write_bytes(flips(shards[-1], 3000, 4000, 1)[0])
        with pytest.raises(VerificationError, match=shards[-1].name):
            surgeon.load(tmp_path / "net", verify=True)
    assert files >= len(shards) + 2


def test_a_newer_format_names_the_version_to_install(tmp_path: Path) -> None:
    surgeon.save(network(), tmp_path / "net")
    manifest = json.loads((tmp_path / "net" / "surgeon.json").read_text())
    manifest |= {"format": 99, "versions": {"surgeon": "2.5.0"}}
    (tmp_path / "net" / "surgeon.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"format 99.*\n.*'surgeon-torch>=2\.5\.0'"):
        surgeon.load(tmp_path / "net")


@pytest.mark.parametrize("form", [None, "1", 0, True, {}])
def test_an_unknown_format_is_a_damaged_manifest(tmp_path: Path, form: object) -> None:
    surgeon.save(network(), tmp_path / "net")
    manifest = json.loads((tmp_path / "net" / "surgeon.json").read_text()) | {"format": form}
    (tmp_path / "net" / "surgeon.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="manifest is damaged: format"):
        surgeon.load(tmp_path / "net")


@pytest.mark.parametrize("name", ["squeezenet", "bert.safetensors", "bert_stock"])
def test_an_artifact_without_digests_is_checked_as_far_as_it_goes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["check", str(OLD / name)]) == 0
    assert "no digests recorded: made by surgeon 0.1.0" in " ".join(capsys.readouterr().out.split())


def test_kept_tensors_that_changed_without_a_training_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = tmp_path / "source.pt"
    torch.save(models.squeezenet1_1().state_dict(), source)
    model = surgeon.apply(source, [surgeon.Freeze(up_to="features.3")])
    with torch.no_grad():
        model.features[9].squeeze.weight.add_(1e-3)
    surgeon.save(model, tmp_path / "out")
    with pytest.raises(VerificationError, match=r"records no training: features\.9\.squeeze\.weight"):
        surgeon.check(tmp_path / "out", source)


def test_kept_tensors_that_surgeon_trained_are_named_as_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = tmp_path / "source.pt"
    torch.save(models.squeezenet1_1(num_classes=10).state_dict(), source)
    model = surgeon.apply(source, [surgeon.Freeze(up_to="features.10")])
    data = {"source": "digits", "per_class": 1, "size": 32, "test_fraction": 0.05}
    surgeon.train(model, surgeon.TrainSettings.model_validate({"data": data, "epochs": 1}), quiet=True)
    surgeon.save(model, tmp_path / "out")
    assert surgeon.check(tmp_path / "out", source).changed
