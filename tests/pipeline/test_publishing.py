"""Model cards from manifests, and pushing to the hub, against a server that answers as the hub does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import companion_folders
import families
import hub_stand_in
import pytest
import torch
from huggingface_hub import ModelCard, constants
from signing_keys import write_key

import surgeon
from surgeon import cli

RECIPE = """
model: {model}
seed: 3
operations:
- {{op: truncate, keep_blocks: 2}}
- {{op: replace_head, classes: 2}}
train:
  data: {{source: table, path: {data}, text: text, targets: {{labels: label}}}}
  epochs: 1
  batch_size: 8
  baseline: scratch
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A BERT cut and fine-tuned by a recipe, with its tokenizer, licence and card."""
    folder = tmp_path_factory.mktemp("card")
    companion_folders.bert(folder / "tiny-bert")
    rows = [f"{word} film,{label}" for word, label in [("good", "nice"), ("bad", "poor")] * 20]
    (folder / "films.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    (folder / "recipe.yaml").write_text(RECIPE.format(model=folder / "tiny-bert", data=folder / "films.csv"))
    surgeon.run_recipe(None, folder / "recipe.yaml", folder / "films", quiet=True)
    return folder / "films"


@pytest.fixture
def untrained(tmp_path) -> Path:
    edited = surgeon.apply(families.build("bert"), [surgeon.ReplaceHead(classes=4)])
    return surgeon.save(edited, tmp_path / "untrained")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_stand_in.running() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setenv("HF_TOKEN", hub_stand_in.TOKEN)
        yield hub


def test_a_card_says_what_was_done_on_which_data_and_what_was_measured(trained):
    card = ModelCard(surgeon.card(trained, name="me/films"))
    assert card.data.license == "mit"
    assert card.data.library_name == "transformers"
    assert card.data.pipeline_tag == "text-classification"
    results = {result.metric_type: result for result in card.data.eval_results}
    assert results["accuracy"].dataset_name == "films.csv"
    assert results["accuracy"].dataset_split == "test"
    report = json.loads((trained / "surgeon.json").read_text())["record"]["training"][0]["report"]
    assert results["accuracy"].metric_value == report["tasks"]["logits"]["all"]["accuracy"]
    for said in (
        "`truncate`: `keep_blocks: 2`",
        "`replace_head`: `classes: 2`",
        "[README.base.md](README.base.md)",
        "[LICENSE](LICENSE)",
        "32 for train, 8 for test",
        "nice, poor",
        "the same network from scratch",
        "95 % interval",
        'surgeon.load("hf:me/films")',
        'BertForSequenceClassification.from_pretrained("me/films")',
    ):
        assert said in card.text
    assert str(trained.parent) not in card.text.replace(RECIPE_TEXT(trained), "")
    assert "Not ready for use" not in card.text


def RECIPE_TEXT(artifact: Path) -> str:  # noqa: N802
    return (artifact / "recipe.yaml").read_text().rstrip("\n")


def test_a_card_warns_of_what_was_drawn_and_never_trained(untrained):
    text = surgeon.card(untrained)
    assert "**Not ready for use:** 2 new tensors (`classifier.weight`, `classifier.bias`)" in text
    assert "its licence is not recorded" in text
    assert "Surgery only" in text


def test_buffers_are_not_counted_as_parameters(tmp_path):
    network = families.build("resnet")
    edited = surgeon.apply(network, [surgeon.Freeze(up_to="layer1")])
    state = edited.state_dict()
    text = surgeon.card(surgeon.save(edited, tmp_path / "net"))
    assert f"{sum(tensor.numel() for tensor in state.values()):,} values in {len(state)} tensors" in text
    assert "`--to state-dict`" in text
    assert "No class of a library" not in text


@pytest.mark.parametrize(("accuracy", "sure"), [(0.75, True), (1.0, True), (0.0019569, False)])
def test_only_a_share_of_the_samples_has_an_interval_by_their_number(untrained, accuracy, sure):
    from surgeon.checkpoint.digests import sealed

    manifest = json.loads((untrained / "surgeon.json").read_text())
    report = {"tasks": {"logits": {"all": {"samples": 4, "accuracy": accuracy}}}}
    manifest["record"]["training"] = [{"surgeries": 1, "settings": {}, "report": report}]
    manifest.pop("digest")
    (untrained / "surgeon.json").write_text(json.dumps(sealed(manifest)))
    assert ("95 % interval" in surgeon.card(untrained)) == sure


@pytest.mark.parametrize(
    ("source", "values", "tag"),
    [
        ({"source": "images", "path": "pets"}, {"accuracy": 0.5}, "image-classification"),
        ({"source": "table", "path": "x.csv", "text": "review"}, {"accuracy": 0.5}, "text-classification"),
        ({"source": "table", "path": "x.csv", "audio": "file"}, {"auroc": 0.5}, "audio-classification"),
        ({"source": "table", "path": "x.csv", "numbers": {"x": ["a"]}}, {"r2": 0.5}, "tabular-regression"),
        ({"source": "masks", "path": "x"}, {"mean_iou": 0.5}, "image-segmentation"),
        ({"source": "images", "path": "pets"}, {"r2": 0.5}, None),
        ([{"source": "images", "path": "a"}, {"source": "table", "path": "b", "text": "t"}], {"accuracy": 0.5}, None),
    ],
)
def test_a_network_of_no_stock_class_is_tagged_by_what_it_was_trained_for(tmp_path, source, values, tag):
    from surgeon.checkpoint.digests import sealed

    edited = surgeon.apply(families.build("resnet"), [surgeon.ReplaceHead(classes=3)])
    manifest_file = surgeon.save(edited, tmp_path / "net") / "surgeon.json"
    manifest = json.loads(manifest_file.read_text())
    report = {"tasks": {"output": {"all": {"samples": 4, **values}}}}
    manifest["record"]["training"] = [{"surgeries": 1, "settings": {"data": source}, "report": report}]
    manifest.pop("digest")
    manifest_file.write_text(json.dumps(sealed(manifest)))
    card = ModelCard(surgeon.card(tmp_path / "net"))
    assert card.data.pipeline_tag == tag
    assert {result.task_type for result in card.data.eval_results} == {tag or "other"}


def test_a_grafted_network_says_that_surgeon_loads_it_and_how_to_do_without(tmp_path):
    edited = surgeon.apply(families.build("bert"), [surgeon.Multitask(tasks={"mood": {"classes": 3}})])
    card = ModelCard(surgeon.card(surgeon.save(edited, tmp_path / "two-heads")))
    assert card.data.library_name == "surgeon"
    assert "surgeon export ARTIFACT --to" in card.text
    assert "from_pretrained" not in card.text


def test_a_base_model_on_the_hub_is_named_in_the_metadata(untrained):
    manifest = json.loads((untrained / "surgeon.json").read_text())
    from surgeon.checkpoint.digests import sealed

    manifest["record"]["source"] = "hf:google-bert/bert-base-uncased@main"
    manifest.pop("digest")
    (untrained / "surgeon.json").write_text(json.dumps(sealed(manifest)))
    assert ModelCard(surgeon.card(untrained)).data.base_model == "google-bert/bert-base-uncased"


def test_single_files_have_cards_too(tmp_path):
    edited = surgeon.apply(families.build("bert"), [surgeon.ReplaceHead(classes=4)])
    for name in ("net.pt", "net.safetensors"):
        assert "`replace_head`" in surgeon.card(surgeon.save(edited, tmp_path / name))


def test_the_command_writes_a_card_and_replaces_none_without_force(trained, tmp_path, capsys):
    place = tmp_path / "README.md"
    assert cli.run(["card", str(trained), "-o", str(place)]) == 0
    assert place.read_text() == surgeon.card(trained)
    assert cli.run(["card", str(trained), "-o", str(place)]) == 8
    assert "exists already" in capsys.readouterr().err
    assert cli.run(["card", str(place.parent / "nothing")]) == 4


def test_only_an_artifact_has_a_card(tmp_path):
    families.build("bert").save_pretrained(tmp_path / "plain")
    with pytest.raises(surgeon.CheckpointError, match="has no manifest"):
        surgeon.card(tmp_path / "plain")


def test_push_sends_the_artifact_with_a_card_and_it_loads_from_the_hub(hub, trained, capsys):
    (trained / "notes.pickle").write_bytes(b"mine")
    try:
        assert cli.run(["push", str(trained), "someone/films", "--private", "--message", "first", "--json"]) == 0
    finally:
        (trained / "notes.pickle").unlink()
    printed = json.loads(capsys.readouterr().out)
    files = hub.repositories["someone/films"]["main"]
    written = {path.name for path in trained.iterdir()}
    assert set(files) == written | {"README.md", ".gitattributes"}
    assert all(files[name] == (trained / name).read_bytes() for name in written)
    assert files["README.md"].decode() == surgeon.card(trained, name="someone/films")
    assert printed["left_out"] == ["notes.pickle"]
    assert hub.private["someone/films"] == "private"
    assert hub.messages == ["first"]
    requests = [request for request in hub.requests if "agent" not in request]
    assert requests[:2] == ["GET /api/whoami-v2", "POST /api/repos/create"]

    loaded, local = surgeon.load("hf:someone/films"), surgeon.load(trained)
    assert type(loaded) is type(local)
    assert all(torch.equal(tensor, local.state_dict()[name]) for name, tensor in loaded.state_dict().items())


def test_a_grafted_network_comes_back_from_the_hub(hub, tmp_path):
    edited = surgeon.apply(families.build("bert"), [surgeon.Multitask(tasks={"mood": {"classes": 3}})])
    surgeon.push(surgeon.save(edited, tmp_path / "two-heads"), "someone/two-heads")
    loaded = surgeon.load("hf:someone/two-heads")
    ids = torch.ones(1, 4, dtype=torch.int64)
    assert torch.equal(loaded(ids)["mood"], edited.eval()(ids)["mood"])


def test_a_second_push_removes_what_would_be_taken_for_its_own_and_nothing_else(hub, untrained, tmp_path):
    surgeon.push(untrained, "someone/net")
    hub.repositories["someone/net"]["main"]["paper.pdf"] = b"mine"
    edited = surgeon.apply(families.build("bert"), [surgeon.Multitask(tasks={"mood": {"classes": 3}})])
    pushed = surgeon.push(surgeon.save(edited, tmp_path / "two-heads"), "someone/net")
    assert pushed.removed == ("config.json",)
    files = hub.repositories["someone/net"]["main"]
    assert "config.json" not in files
    assert files["paper.pdf"] == b"mine"


def test_a_branch_is_made_and_a_card_that_lies_in_the_artifact_is_used(hub, untrained):
    (untrained / "README.md").write_text("---\nlicense: mit\n---\nMine.\n")
    pushed = surgeon.push(untrained, "someone/net", revision="v2")
    assert pushed.card == "found"
    assert hub.repositories["someone/net"]["v2"]["README.md"] == b"---\nlicense: mit\n---\nMine.\n"
    assert "surgeon.json" not in hub.repositories["someone/net"]["main"]


def test_a_signature_is_pushed_with_what_it_holds_for_and_no_other(hub, untrained, tmp_path):
    model_signing = pytest.importorskip("model_signing", reason="needs the extra [sign]")
    write_key(tmp_path, "key")
    surgeon.sign(untrained, key=tmp_path / "key.pem")
    with pytest.raises(surgeon.HubError, match=r"README\.md are sent and not signed"):
        surgeon.push(untrained, "someone/net")
    surgeon.card(untrained, untrained / "README.md")
    surgeon.sign(untrained, key=tmp_path / "key.pem", force=True)
    assert "model.sig" in surgeon.push(untrained, "someone/net").files
    copy = tmp_path / "copy"
    for name, data in hub.repositories["someone/net"]["main"].items():
        copy.mkdir(exist_ok=True)
        (copy / name).write_bytes(data)
    signer = surgeon.SignedBy(key=tmp_path / "key.pub")
    assert surgeon.check(copy, signature=signer).signed == 5
    model_signing.verifying.Config().use_elliptic_key_verifier(public_key=signer.key).verify(copy, copy / "model.sig")

    (untrained / "README.md").write_text("Another card.\n")
    with pytest.raises(surgeon.HubError, match=r"README\.md have changed since"):
        surgeon.push(untrained, "someone/net")
    (untrained / "notes.txt").write_text("mine")
    surgeon.sign(untrained, key=tmp_path / "key.pem", force=True)
    with pytest.raises(surgeon.HubError, match=r"notes\.txt are signed and not sent"):
        surgeon.push(untrained, "someone/net")
    (untrained / "model.sig").unlink()
    assert "model.sig" in surgeon.push(untrained, "someone/net").removed


def test_a_damaged_artifact_is_not_pushed(hub, untrained):
    weights = untrained / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(surgeon.VerificationError, match="has changed since it was written"):
        surgeon.push(untrained, "someone/net")
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("refused", "status", "said"),
    [
        ("GET /api/whoami", 401, "the hub does not accept the token (401), checking the token"),
        ("POST /api/repos/create", 403, "the token may not write to someone/net (403), making the repository"),
        ("POST /api/models/someone/net/commit", 409, "something else has changed the repository meanwhile (409)"),
        ("POST /api/models/someone/net/commit", 500, "the hub failed (500), sending the files"),
    ],
)
def test_a_refusal_of_the_hub_is_one_line_and_an_exit_code(hub, untrained, capsys, refused, status, said):
    hub.refusals[refused] = status
    assert cli.run(["push", str(untrained), "someone/net"]) == 12
    error = capsys.readouterr().err
    assert said in error
    assert "bug" not in error
    assert "Traceback" not in error


def test_the_token_is_tried_before_the_artifact_is_read(hub, untrained, monkeypatch):
    monkeypatch.setattr("surgeon.pipeline.publishing.hub.verify", lambda *_, **__: pytest.fail("read before"))
    hub.role = "read"
    with pytest.raises(surgeon.HubError, match="may only read"):
        surgeon.push(untrained, "someone/net")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(untrained / "none"))
    with pytest.raises(surgeon.HubError, match="there is no token") as caught:
        surgeon.push(untrained, "someone/net")
    assert "hf auth login" in caught.value.hint


def test_a_hub_that_is_gone_and_offline_mode_are_said(hub, untrained, monkeypatch, capsys):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert cli.run(["push", str(untrained), "someone/net"]) == 12
    assert "the Hugging Face hub cannot be reached" in capsys.readouterr().err
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cli.run(["push", str(untrained), "someone/net"]) == 12
    assert "unset HF_HUB_OFFLINE" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["net", "a/b/c", "some one/net", "someone/--net"])
def test_a_name_that_the_hub_does_not_take_is_refused_at_once(name, untrained):
    with pytest.raises(surgeon.HubError):
        surgeon.push(untrained, name)


def test_only_folders_of_surgeon_are_pushed(tmp_path):
    families.build("bert").save_pretrained(tmp_path / "plain")
    (tmp_path / "net.pt").write_bytes(b"")
    for name, said in (("plain", "is not an artifact of surgeon"), ("net.pt", "a file"), ("gone", "no such folder")):
        with pytest.raises(surgeon.CheckpointError, match=said):
            surgeon.push(tmp_path / name, "someone/net")


def test_the_command_in_a_process_of_its_own_obeys_the_environment(untrained):
    with hub_stand_in.running() as hub:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.endswith("_OFFLINE")},
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": hub_stand_in.TOKEN,
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-m", "surgeon", "push", str(untrained), "someone/net"]
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        assert f"pushed to {hub.url}/someone/net" in process.stdout
        assert "surgeon.json" in hub.repositories["someone/net"]["main"]
