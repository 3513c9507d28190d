"""The promises of the pipeline, each on real networks and files."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path

import pytest
import torch
from families import build, example

import surgeon
from surgeon.errors import ArchitectureError, OperationError, OutputError, SiteError, SurgeonWarning
from surgeon.interfaces.operation import Operation
from surgeon.operations import Freeze, ReplaceHead, Truncate

RECIPE = [Truncate(after="layer2"), ReplaceHead(classes=3), Freeze(up_to="layer1")]


def digest(folder: Path) -> dict[str, str]:
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())}


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "resnet.pt"
    torch.save(build("resnet").state_dict(), path)
    return path


def test_the_model_handed_in_is_unchanged():
    model = build("resnet")
    before, modules = copy.deepcopy(model.state_dict()), [n for n, _ in model.named_modules()]
    surgeon.apply(model, RECIPE)
    assert [n for n, _ in model.named_modules()] == modules
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_inplace_edits_the_model_itself_and_keeps_its_parameter_objects():
    model = build("resnet")
    kept = model.layer1[0].conv1.weight
    edited = surgeon.apply(model, RECIPE, inplace=True)
    assert edited is model
    assert model.layer1[0].conv1.weight is kept
    assert not hasattr(model, "layer3")
    assert not any(p.is_meta for p in model.parameters())


def test_an_error_in_place_leaves_the_model_as_it_was():
    model = build("resnet")
    with pytest.raises(OperationError):
        surgeon.apply(model, [Truncate(after="layer2"), Freeze(sites=".")], inplace=True)
    assert type(model).__name__ == "ResNet"
    assert all(p.requires_grad for p in model.parameters())
    assert hasattr(model, "layer3")


def test_kept_tensors_are_byte_identical_and_the_plan_accounts_for_every_tensor(checkpoint):
    source = torch.load(checkpoint, weights_only=True)
    plan = surgeon.plan(checkpoint, RECIPE)
    state = surgeon.apply(checkpoint, RECIPE).state_dict()
    assert {fact.name for fact in plan.tensors} == set(state)
    for fact in plan.tensors:
        if fact.origin == "kept":
            assert torch.equal(state[fact.name], source[fact.source])
    kept = {fact.source for fact in plan.tensors if fact.origin == "kept"}
    assert kept | {fact.name for fact in plan.dropped} == set(source)
    assert plan.counts.startswith(f"{len(kept)} of {len(source)} tensors kept, ")


def test_planning_reads_no_weight(checkpoint):
    data = bytearray(checkpoint.read_bytes())
    plan = surgeon.plan(checkpoint, RECIPE)
    # scribble over the first tensor's bytes: the plan cannot tell
    from surgeon.checkpoint.formats import open_checkpoint

    place = open_checkpoint(checkpoint).entries["conv1.weight"].bytes
    data[place.offset : place.offset + place.length] = b"\xff" * place.length
    checkpoint.write_bytes(data)
    assert surgeon.plan(checkpoint, RECIPE) == plan


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".pt"])
def test_the_same_recipe_input_and_seed_give_the_same_bytes(checkpoint, tmp_path, suffix):
    from surgeon.pipeline.prepare import prepare

    for number in (1, 2):
        torch.manual_seed(number)  # the caller's own random state plays no part
        (tmp_path / str(number)).mkdir()
        prepare(checkpoint, RECIPE, seed=7).write(tmp_path / str(number) / f"result{suffix}")
    one, two = (tmp_path / n / f"result{suffix}" for n in "12")
    if suffix:
        assert one.read_bytes() == two.read_bytes()
    else:
        assert digest(one) == digest(two)


def test_another_seed_gives_another_head_and_the_order_of_operations_changes_no_value():
    model = build("resnet")
    a = surgeon.apply(model, [ReplaceHead(classes=3), Freeze(sites="conv1")], seed=1)
    b = surgeon.apply(model, [Freeze(sites="conv1"), ReplaceHead(classes=3)], seed=1)
    c = surgeon.apply(model, [ReplaceHead(classes=3)], seed=2)
    assert torch.equal(a.fc.weight, b.fc.weight)
    assert not torch.equal(a.fc.weight, c.fc.weight)


@pytest.mark.parametrize("suffix", ["", ".safetensors", ".pt"])
def test_an_artifact_loads_with_equal_outputs_and_frozen_as_it_was(checkpoint, tmp_path, suffix):
    edited = surgeon.apply(checkpoint, RECIPE)
    path = surgeon.save(edited, tmp_path / f"out{suffix}")
    again = surgeon.load(path)
    args, _ = example("resnet")
    with torch.no_grad():
        assert torch.equal(edited(*args), again(*args))
    flags = {n: p.requires_grad for n, p in edited.named_parameters()}
    assert {n: p.requires_grad for n, p in again.named_parameters()} == flags
    assert surgeon.record_of(again).surgeries == surgeon.record_of(edited).surgeries


def test_a_pt_artifact_is_a_plain_state_dict(checkpoint, tmp_path):
    edited = surgeon.apply(checkpoint, [ReplaceHead(classes=3)])
    surgeon.save(edited, tmp_path / "out.pt")
    state = torch.load(tmp_path / "out.pt", weights_only=True)
    import torchvision

    plain = torchvision.models.resnet18(num_classes=3)
    plain.load_state_dict(state)
    assert torch.equal(plain.fc.weight, edited.fc.weight)


def test_surgery_follows_surgery(checkpoint, tmp_path):
    surgeon.save(surgeon.apply(checkpoint, [Truncate(after="layer2")]), tmp_path / "one")
    second = surgeon.apply(tmp_path / "one", [ReplaceHead(classes=4)])
    surgeon.save(second, tmp_path / "two")
    third = surgeon.load(tmp_path / "two")
    args, _ = example("resnet")
    with torch.no_grad():
        assert third(*args).shape == (2, 4)
        assert torch.equal(third(*args), second(*args))
    assert len(surgeon.record_of(third).surgeries) == 2


def test_a_checkpoint_in_half_precision_stays_in_half_precision(tmp_path):
    model = build("resnet").to(torch.bfloat16)
    torch.save(model.state_dict(), tmp_path / "half.pt")
    edited = surgeon.apply(tmp_path / "half.pt", [ReplaceHead(classes=3)])
    assert edited.conv1.weight.dtype == edited.fc.weight.dtype == torch.bfloat16
    assert torch.equal(edited.conv1.weight, model.conv1.weight)


def test_tied_tensors_stay_tied_and_are_stored_once(tmp_path):
    edited = surgeon.apply(build("gpt2"), [Truncate(keep_blocks=1)])
    assert edited.lm_head.weight is edited.transformer.wte.weight
    surgeon.save(edited, tmp_path / "gpt2")
    from safetensors import safe_open

    with safe_open(tmp_path / "gpt2" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118 - it is not a mapping
    again = surgeon.load(tmp_path / "gpt2")
    assert again.lm_head.weight is again.transformer.wte.weight


def test_a_lone_operation_needs_no_list_and_no_operation_is_refused():
    assert surgeon.apply(build("resnet"), ReplaceHead(classes=3)).fc.out_features == 3
    with pytest.raises(OperationError, match="there is no operation to apply"):
        surgeon.apply(build("resnet"), [])


def test_a_head_that_the_file_lacks_has_to_be_replaced(tmp_path):
    state = {k: v for k, v in build("resnet").state_dict().items() if not k.startswith("fc.")}
    torch.save(state, tmp_path / "headless.pt")
    edited = surgeon.apply(tmp_path / "headless.pt", [ReplaceHead(classes=3)])
    assert edited.fc.out_features == 3
    with pytest.raises(ArchitectureError, match=r"lacks 2 tensors that the network needs: fc\.weight"):
        surgeon.apply(tmp_path / "headless.pt", [Freeze(sites="conv1")])


def test_an_output_is_never_overwritten_nor_put_into_the_input(checkpoint, tmp_path):
    edited = surgeon.apply(checkpoint, RECIPE)
    out = surgeon.save(edited, tmp_path / "out")
    before = digest(out)
    with pytest.raises(OutputError, match="exists"):
        surgeon.save(edited, out)
    assert digest(out) == before
    surgeon.save(edited, out, force=True)
    from surgeon.pipeline.prepare import prepare

    with pytest.raises(OutputError, match="input"):
        prepare(checkpoint, RECIPE).write(checkpoint, force=True)
    with pytest.raises(OutputError, match="inside the input"):
        prepare(out, [Freeze(sites="conv1")]).write(out / "deeper")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"meow")
    with pytest.raises(OutputError, match="not an artifact"):
        surgeon.save(edited, tmp_path / "photos", force=True)
    assert (tmp_path / "photos" / "cat.png").exists()


def test_a_write_that_fails_half_way_leaves_nothing(checkpoint, tmp_path):
    class Late(Operation):
        """Fails when its values are wanted."""

        def apply(self, model, surgery):
            """Derive a head that cannot be derived."""
            old = surgery.site("fc").module
            surgery.derive(old.weight, [old.weight], lambda weight: weight[:1])
            return model

    from surgeon.pipeline.prepare import prepare

    class Offer:
        @staticmethod
        @surgeon.hookimpl
        def surgeon_operations():
            return [Late]

    plugins = surgeon.load_plugins()
    plugins.register(Offer(), "late")
    prepared = prepare(checkpoint, [Late()], plugins=plugins)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OperationError, match="gave shape"):
        prepared.write(tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("roles", "says"),
    [({"head": "fx"}, "roles.head: no module matches 'fx'"), ({"haed": "fc"}, "nearest: head")],
)
def test_an_override_of_a_role_that_names_nothing_is_refused(checkpoint, roles, says):
    with pytest.raises(SiteError, match=says):
        surgeon.plan(checkpoint, [ReplaceHead(classes=3)], roles=roles)


@pytest.mark.parametrize(
    ("call", "option", "right"),
    [
        (lambda: surgeon.plan("net.pt", RECIPE, archs="torchvision/resnet18"), "archs", "arch"),
        (lambda: surgeon.apply("net.pt", RECIPE, in_place=True), "in_place", "inplace"),
        (lambda: surgeon.load("net.pt", trust_pickles=True), "trust_pickles", "trust_pickle"),
        (lambda: surgeon.save(None, "net.pt", forced=True), "forced", "force"),
        (lambda: surgeon.verify("net.pt", sources="net.pt"), "sources", "source"),
        (lambda: surgeon.finetune("net.pt", RECIPE, setting=None), "setting", "settings"),
        (lambda: surgeon.inspect("net.pt", archi="x"), "archi", "arch"),
        (lambda: surgeon.advise("net.pt", "data", sample=3), "sample", "samples"),
        (lambda: surgeon.run_recipe("net.pt", RECIPE, "out", trains=False), "trains", "train"),
        (lambda: surgeon.run_training("net.pt", None, "out", resumes=True), "resumes", "resume"),
    ],
)
def test_a_misspelt_option_is_refused_with_the_right_name(call, option, right):
    with pytest.raises(TypeError, match=rf"takes no option '{option}'; nearest: {right}\b"):
        call()


def test_an_option_that_resembles_none_is_refused_with_all_of_them():
    with pytest.raises(TypeError, match="it takes: model, path, force"):
        surgeon.save(None, "net.pt", qqqq=1)


def test_apply_says_that_a_train_section_is_left_aside_and_what_trains(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "operations: [{op: replace_head, classes: 3}]\ntrain: {data: {source: digits, classes: [5, 6, 7]}}\n"
    )
    says = r"recipe\.yaml is ignored.*surgeon\.finetune\(model, recipe\)"
    with pytest.warns(SurgeonWarning, match=says) as caught:
        edited = surgeon.apply(build("resnet"), tmp_path / "recipe.yaml")
    assert edited.fc.out_features == 3
    assert caught[0].filename == __file__, "the warning points at the caller"


def test_apply_without_a_train_section_does_not_warn(recwarn):
    surgeon.apply(build("resnet"), RECIPE)
    assert not [warning for warning in recwarn if issubclass(warning.category, SurgeonWarning)]


def test_plan_refuses_train_settings_that_training_would_refuse(tmp_path):
    (tmp_path / "recipe.yaml").write_text("operations: [{op: replace_head, classes: 3}]\ntrain: {epochs: 2}\n")
    with pytest.raises(surgeon.RecipeError, match="train: needs the key 'data'"):
        surgeon.plan(build("resnet"), tmp_path / "recipe.yaml")
