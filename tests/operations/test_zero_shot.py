"""Class scores from attributes, and classes that were never seen."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from families import FAMILIES, build, example
from pydantic import ValidationError
from torch.nn import functional

import surgeon
from surgeon.errors import OperationError, RecipeError
from surgeon.nn.attribute_table import read_table
from surgeon.nn.outputs import Outputs
from surgeon.nn.zero_shot import class_names, head_of, with_classes
from surgeon.operations import AddClasses, Freeze, ReplaceHead, Truncate, ZeroShot
from surgeon.testing import check_operations

ANIMALS = {"zebra": [1, 0, 1], "whale": [0, 1, 0], "owl": [0.5, 0, 0]}
CSV = "class,striped,swims,grazes\nzebra,1,0,1\nwhale,0,1,0\n"
SAMPLE = [("dap", name) for name in ("resnet", "vit", "fcn", "bert", "hf_swin", "wav2vec2")]
SAMPLE += [("bilinear", "resnet"), ("bilinear", "bert"), ("cosine", "vit"), ("cosine", "wav2vec2")]


def run(model, name):
    args, kwargs = example(name)
    with torch.no_grad():
        return model(*args, **kwargs)


@pytest.mark.parametrize(("method", "name"), SAMPLE)
def test_the_head_scores_classes_by_their_attributes(method, name):
    args, kwargs = example(name)
    fields = {"embed": 4} if method == "cosine" else {}
    operation = ZeroShot(attributes=ANIMALS, method=method, **fields)
    edited = check_operations(FAMILIES[name], [operation], args, kwargs)
    outputs = run(edited, name)
    if method == "dap":
        assert isinstance(outputs, Outputs)
        assert outputs.attributes.shape == (2, 3)
        outputs = outputs.logits
    assert outputs.shape == (2, 3)
    assert class_names(edited) == ["zebra", "whale", "owl"]


def scores(method, **fields):
    """The scores of a ResNet, and what it makes of the images before the table comes in."""
    edited = surgeon.apply(build("resnet"), [ZeroShot(attributes=ANIMALS, method=method, **fields)])
    head, seen = head_of(edited), []
    head.project.register_forward_hook(lambda module, args, output: seen.append(output))
    outputs = run(edited, "resnet")
    return (outputs.logits if method == "dap" else outputs), seen[0], head


def test_dap_multiplies_up_the_probabilities_of_attributes():
    scored, logits, _ = scores("dap", prior="classes")
    table = torch.tensor(list(ANIMALS.values()))
    prior = table.mean(0)
    for row in range(2):
        p = logits[row].sigmoid()
        for index, a in enumerate(table):
            expected = (a * (p / prior).log() + (1 - a) * ((1 - p) / (1 - prior)).log()).sum()
            torch.testing.assert_close(scored[row, index], expected, atol=1e-4, rtol=1e-4)


def test_bilinear_and_cosine_scores_are_what_they_say():
    directions = functional.normalize(torch.tensor(list(ANIMALS.values())), dim=1)
    scored, projected, _ = scores("bilinear")
    torch.testing.assert_close(scored, projected @ directions.T)
    scored, projected, head = scores("cosine")
    torch.testing.assert_close(scored, 10 * functional.normalize(projected, dim=1) @ directions.T)
    assert head.embedding is None
    scored, projected, head = scores("cosine", embed=5)
    embedded = functional.normalize(torch.tensor(list(ANIMALS.values())) @ head.embedding.weight.T, dim=1)
    torch.testing.assert_close(scored, 10 * functional.normalize(projected, dim=1) @ embedded.T)


@pytest.mark.parametrize("method", ["dap", "bilinear", "cosine"])
def test_classes_are_added_when_the_network_is_used(method, tmp_path):
    model = surgeon.apply(build("resnet"), [ZeroShot(attributes=ANIMALS, method=method)])
    before = run(model, "resnet")
    before = before.logits if method == "dap" else before
    wider = with_classes(model, {"horse": [0, 0, 1], "twin": ANIMALS["whale"]})
    outputs = run(wider, "resnet")
    outputs = outputs.logits if method == "dap" else outputs
    assert class_names(wider) == ["zebra", "whale", "owl", "horse", "twin"]
    assert torch.equal(outputs[:, :3], before)
    torch.testing.assert_close(outputs[:, 4], before[:, 1])
    alone = with_classes(wider, {"horse": [0, 0, 1]}, only=True)
    scored = run(alone, "resnet")
    torch.testing.assert_close(scored.logits if method == "dap" else scored, outputs[:, 3:4])
    assert class_names(alone) == ["horse"]
    assert class_names(model) == ["zebra", "whale", "owl"], "the model handed in is as it was"
    assert wider.layer4[1].conv2.weight is model.layer4[1].conv2.weight
    surgeon.save(alone, tmp_path / "out")
    with pytest.warns(surgeon.SurgeonWarning, match=r"head\.added of ZeroShotHead.* is gone"):
        loaded = surgeon.load(tmp_path / "out", arch=FAMILIES["resnet"])
    assert class_names(loaded) == ["zebra", "whale", "owl"]


def test_classes_are_added_to_an_artifact_and_saved(tmp_path):
    surgeon.save(surgeon.apply(build("resnet"), [ZeroShot(attributes=ANIMALS)]), tmp_path / "first")
    horse = AddClasses(attributes={"horse": [0, 0, 1]})
    model = surgeon.apply(tmp_path / "first", [horse])
    assert class_names(model) == ["zebra", "whale", "owl", "horse"]
    assert torch.equal(run(model, "resnet")[:, :3], run(surgeon.load(tmp_path / "first"), "resnet"))
    surgeon.save(model, tmp_path / "second")
    again = surgeon.load(tmp_path / "second")
    assert class_names(again) == class_names(model)
    assert torch.equal(run(again, "resnet"), run(model, "resnet"))
    alone = surgeon.apply(tmp_path / "second", [AddClasses(attributes={"cow": [0, 0, 1]}, only=True)])
    assert torch.equal(run(alone, "resnet"), run(model, "resnet")[:, 3:])
    plan = surgeon.plan(tmp_path / "first", [horse])
    assert plan.steps[0].edits[0].what == "(3, 3) → (4, 3)"


def test_a_head_tells_unseen_classes_apart_after_training():
    """Two factors, three values each; the class (2, 2) and three others are never shown."""
    torch.manual_seed(0)
    names = [f"{a}{b}" for a in range(3) for b in range(3)]
    rows = {n: [float(int(n[0]) == i) for i in range(3)] + [float(int(n[1]) == i) for i in range(3)] for n in names}
    seen, unseen = [n for n in names if n not in ("22", "01", "10")], ["22", "01", "10"]
    mixing = torch.randn(6, 20)

    def samples(classes, count):
        labels = torch.arange(count) % len(classes)
        values = torch.tensor([rows[classes[i]] for i in labels]) @ mixing
        return values + 0.3 * torch.randn(count, 20), labels

    trunk = torch.nn.Sequential(torch.nn.Linear(20, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).eval()
    for method in ("dap", "bilinear", "cosine"):
        operation = ZeroShot(attributes={n: rows[n] for n in seen}, method=method)
        model = surgeon.apply(trunk, [operation], inputs=[[2, 20]]).train()
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(150):
            images, labels = samples(seen, 60)
            output = model(images)
            optimizer.zero_grad()
            functional.cross_entropy(output if method != "dap" else output.logits, labels).backward()
            optimizer.step()
        images, labels = samples(unseen, 300)
        output = with_classes(model.eval(), {n: rows[n] for n in unseen}, only=True)(images)
        accuracy = ((output if method != "dap" else output.logits).argmax(1) == labels).float().mean()
        assert accuracy > 0.9, f"{method}: {accuracy:.2f} among three classes that were never shown"


def test_a_recipe_finds_the_table_beside_itself_and_the_artifact_holds_it(tmp_path, monkeypatch):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "animals.csv").write_text(CSV)
    (folder / "r.yaml").write_text("operations:\n  - {op: zero_shot, attributes: animals.csv, method: dap}\n")
    monkeypatch.chdir(tmp_path)
    edited = surgeon.apply(build("resnet"), folder / "r.yaml")
    surgeon.save(edited, tmp_path / "out")
    (folder / "animals.csv").unlink()
    loaded = surgeon.load(tmp_path / "out")
    assert torch.equal(head_of(loaded).table, torch.tensor([[1.0, 0, 1], [0, 1, 0]]))
    assert class_names(loaded) == ["zebra", "whale"]
    assert head_of(loaded).attributes == ["striped", "swims", "grazes"]
    assert torch.equal(run(loaded, "resnet").logits, run(edited, "resnet").logits)
    wider = with_classes(loaded, {"horse": {"grazes": 1, "striped": 0, "swims": 0}})
    assert head_of(wider).added.tolist() == [[0, 0, 1]]
    (tmp_path / "more.csv").write_text("name,swims,grazes,striped\nseal,1,0,0.2\n")
    added = surgeon.apply(tmp_path / "out", [AddClasses(attributes=str(tmp_path / "more.csv"))])
    torch.testing.assert_close(head_of(added).table[2], torch.tensor([0.2, 1, 0]))
    record = json.loads((tmp_path / "out" / "surgeon.json").read_text())["record"]["surgeries"][0]
    assert record["operations"][0]["attributes"].endswith("animals.csv")


def test_the_head_composes_with_cuts_earlier_heads_and_freezing():
    operations = [
        Truncate(after="layer3"),
        ReplaceHead(classes=4),
        ZeroShot(attributes=ANIMALS, hidden=[8], dropout=0.1),
        Freeze(all_but="head"),
    ]
    args, kwargs = example("resnet")
    edited = check_operations(FAMILIES["resnet"], operations, args, kwargs)
    assert edited(*args).shape == (2, 3)
    trains = {key for key, p in edited.named_parameters() if p.requires_grad}
    assert all(key.startswith("grafts.logits.head.") for key in trains)
    assert "grafts.logits.head.table" in edited.state_dict()


def test_the_head_compiles_whole():
    edited = surgeon.apply(build("resnet"), [ZeroShot(attributes=ANIMALS, method="dap")])
    args, _ = example("resnet")
    for model in (edited, with_classes(edited, {"horse": [0, 0, 1]})):
        torch._dynamo.reset()  # other tests compile the same code for other networks
        compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(*args)["logits"], model(*args).logits, atol=1e-4, rtol=1e-4)


def test_training_looks_at_classes_or_at_attributes():
    assert [(o.output, o.loss, o.label, o.weight) for o in ZeroShot(attributes=ANIMALS).objectives()] == [
        ("logits", "cross_entropy", "labels", 1.0)
    ]
    learn = ZeroShot(attributes=ANIMALS, method="dap", learn="attributes", attributes_label="likeness")
    assert [(o.output, o.loss, o.label, o.weight) for o in learn.objectives()] == [
        ("logits", "cross_entropy", "labels", 0.0),
        ("attributes", "bce", "likeness", 1.0),
    ]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"attributes": {}}, "at least 1"),
        ({"attributes": ANIMALS, "embed": 3}, "embed is for method: cosine"),
        ({"attributes": ANIMALS, "prior": "classes"}, "prior is for method: dap"),
        ({"attributes": ANIMALS, "learn": "attributes"}, "learn is for method: dap"),
        ({"attributes": ANIMALS, "method": "dap", "attributes_label": "a"}, "for learn: attributes"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(fields, words):
    with pytest.raises(ValidationError, match=words):
        ZeroShot(**fields)


@pytest.mark.parametrize(
    ("operations", "words"),
    [
        ([ZeroShot(attributes={"a": [1], "b": [1, 0]})], "b has 2 attributes, and a 1"),
        ([ZeroShot(attributes={"a": {"x": 1}, "b": {"y": 1}})], "b differs from a in x, y"),
        ([ZeroShot(attributes={"a": [3, 1]}, method="dap")], "outside 0 to 1"),
        ([ZeroShot(attributes={"a": [float("nan")]})], "not a finite number"),
        ([ZeroShot(attributes="nothing.csv")], "no such file"),
        ([ZeroShot(attributes=ANIMALS, at="layer1", pool="none")], "leave pool out"),
        ([AddClasses(attributes=ANIMALS)], "add one with zero_shot"),
        ([ZeroShot(attributes=ANIMALS), AddClasses(attributes={"owl": [1, 1, 1]})], "already has owl"),
        ([ZeroShot(attributes=ANIMALS), AddClasses(attributes={"cow": [1, 1]})], "but the head has 3"),
        (
            [ZeroShot(attributes=ANIMALS), AddClasses(attributes={"cow": {"x": 1}})],
            "other attributes than the head: 0, 1, 2, x",
        ),
    ],
)
def test_an_unreadable_table_or_one_that_fits_no_head_is_refused(operations, words):
    with pytest.raises(OperationError, match=words):
        surgeon.plan(build("resnet"), operations)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("class,a\n", "has no classes"),
        ("class\nzebra\n", "has no attributes"),
        ("class,a,b\nzebra,1\n", r"t.csv:2: zebra has 1 values for 2 attributes"),
        ("class,a\nzebra,1\nzebra,0\n", r"t.csv:3: the class 'zebra' is listed twice"),
        ("class,a\nzebra,yes\n", r"t.csv:2: zebra: could not convert"),
        ("class,a,a\nzebra,1,0\n", "attribute 'a' is listed twice"),
    ],
)
def test_a_table_file_is_refused_at_its_line(text, words, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(OperationError, match=words):
        read_table(tmp_path / "t.csv")


def test_a_model_without_such_a_head_says_so():
    with pytest.raises(OperationError, match="no head that scores classes by their attributes"):
        with_classes(build("resnet"), ANIMALS)


def test_a_recipe_with_a_table_that_is_none_is_refused_at_its_place(tmp_path):
    (tmp_path / "r.yaml").write_text("operations:\n  - op: zero_shot\n    attributes: {zebra: striped}\n")
    with pytest.raises(RecipeError, match=r"r.yaml:3.*zebra"):
        surgeon.load_recipe(tmp_path / "r.yaml")
