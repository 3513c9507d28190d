"""Adapter folders of peft as models, merging them, and the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
import torchvision
import transformers
from peft_networks import IDS, bert, llama, logits, perturbed, quiet, saved
from safetensors.torch import load_file, save_file
from surgeon_peft import MergeAdapters, Peft, export_adapter

import surgeon


@pytest.fixture
def theirs(tmp_path):
    """An adapter that peft alone made: LoRA and a head, with its base beside it."""

    @quiet
    def make():
        base = saved(bert(), tmp_path / "base")
        model = transformers.BertForSequenceClassification.from_pretrained(base)
        config = peft.LoraConfig(r=4, target_modules=["query", "value"], modules_to_save=["classifier"])
        model = perturbed(peft.get_peft_model(model, config))
        model.save_pretrained(str(tmp_path / "adapter"))
        return tmp_path / "adapter", logits(model)

    return make()


def edit_config(folder: Path, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@quiet
def test_an_adapter_that_peft_made_is_a_model(theirs):
    folder, expected = theirs
    model = surgeon.load(f"peft:{folder}")
    assert torch.equal(logits(model), expected)
    assert any(p.requires_grad for p in model.parameters())


@quiet
def test_merging_gives_what_peft_gives_with_the_saved_head(theirs, tmp_path):
    folder, expected = theirs
    path = tmp_path / "merged"
    surgeon.save(surgeon.apply(f"peft:{folder}", [MergeAdapters()]), path)
    merged = transformers.BertForSequenceClassification.from_pretrained(path)
    torch.testing.assert_close(logits(merged), expected)
    assert not torch.equal(merged.classifier.weight, bert().classifier.weight)


@quiet
def test_an_opened_adapter_can_be_edited_trained_further_and_saved(theirs, tmp_path):
    folder, expected = theirs
    edited = surgeon.apply(f"peft:{folder}", [surgeon.Truncate(keep_blocks=1)])
    again = surgeon.load(surgeon.save(edited, tmp_path / "artifact"))
    assert torch.equal(logits(again), logits(edited))
    assert not torch.equal(logits(edited), expected)


@quiet
def test_a_base_of_another_class_is_refused(theirs, tmp_path):
    folder, _ = theirs
    edit_config(folder, base_model_name_or_path=saved(llama(), tmp_path / "other"))
    with pytest.raises(surgeon.ArchitectureError, match=r"for BertForSequenceClassification.*LlamaForCausalLM"):
        surgeon.load(f"peft:{folder}")


@quiet
def test_a_base_with_other_shapes_is_refused(theirs, tmp_path):
    folder, _ = theirs
    edit_config(folder, base_model_name_or_path=saved(bert(labels=5), tmp_path / "other"))
    with pytest.raises(surgeon.CheckpointError, match=r"classifier.*\(3, 32\).*\(5, 32\)"):
        surgeon.load(f"peft:{folder}")


@quiet
def test_a_base_that_does_not_exist_is_refused_with_its_place(theirs):
    folder, _ = theirs
    edit_config(folder, base_model_name_or_path="/nowhere/base")
    with pytest.raises(surgeon.CheckpointError, match="base_model_name_or_path"):
        surgeon.load(f"peft:{folder}")


@quiet
def test_tensors_that_are_missing_or_have_no_place_are_refused_by_name(theirs):
    folder, _ = theirs
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if "lora_B" in name)
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, weights)
    with pytest.raises(surgeon.CheckpointError, match=r"lacks 1 tensors.*lora_B"):
        surgeon.load(f"peft:{folder}")
    save_file({**tensors, "base_model.model.bert.extra.lora_A.weight": torch.ones(2, 2)}, weights)
    with pytest.raises(surgeon.CheckpointError, match=r"no place for .*bert\.extra"):
        surgeon.load(f"peft:{folder}")


@quiet
def test_a_folder_without_an_adapter_is_refused(tmp_path):
    with pytest.raises(surgeon.CheckpointError, match=r"adapter_config\.json"):
        surgeon.load(f"peft:{tmp_path}")


@quiet
def test_merging_a_weight_that_is_tied_is_refused(tmp_path):
    base = saved(llama(tie_word_embeddings=True), tmp_path / "base")
    with pytest.raises(surgeon.OperationError, match=r"same tensor as lm_head\.weight"):
        surgeon.plan(base, [Peft(targets="model.embed_tokens", config={"r": 2}), MergeAdapters()])


def test_a_network_without_an_adapter_cannot_be_merged():
    with pytest.raises(surgeon.OperationError, match="no adapter of peft"):
        surgeon.plan(bert(), [MergeAdapters()])


@quiet
def test_an_export_does_not_replace_other_files(tmp_path):
    edited = surgeon.apply(bert(), [Peft(targets="**.query", config={"r": 2})])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(surgeon.OutputError, match="exists"):
        export_adapter(edited, tmp_path / "out")
    with pytest.raises(surgeon.OutputError, match="more than an adapter"):
        export_adapter(edited, tmp_path / "out", force=True)
    with pytest.raises(surgeon.ExportError, match="no adapter"):
        export_adapter(bert(), tmp_path / "other")


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "surgeon", *map(str, arguments)], capture_output=True, text=True, check=True, cwd=cwd
    ).stdout


@quiet
def test_the_command_line_attaches_trains_exports_opens_and_merges(tmp_path):
    saved(bert(), tmp_path / "base")
    rows = "".join(f"{'good' if i % 2 else 'bad'} {i % 7},{i % 3}\n" for i in range(24))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", *map(str, range(10))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "base")
    (tmp_path / "recipe.yaml").write_text(
        "operations:\n"
        "  - op: peft\n"
        "    targets: '**.query, **.value'\n"
        "    modules_to_save: '@head'\n"
        "    config: {r: 4}\n"
        "train:\n"
        "  data: {source: table, path: rows.csv, text: text, targets: {labels: label}}\n"
        "  epochs: 2\n"
        "  batch_size: 8\n"
        "  learning_rate: 1.0e-2\n"
    )
    printed = run("apply", "recipe.yaml", "base", "-o", "tuned", cwd=tmp_path)
    assert "parameters train" in printed
    tuned = surgeon.load(tmp_path / "tuned")
    assert torch.equal(
        tuned.bert.encoder.layer[0].attention.self.query.base_layer.weight,
        bert().bert.encoder.layer[0].attention.self.query.weight,
    )
    assert tuned.bert.encoder.layer[0].attention.self.query.lora_B["default"].weight.abs().max() > 0
    run("export-adapter", "tuned", "-o", "adapter", cwd=tmp_path)
    base = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base")
    alone = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    assert torch.equal(logits(alone, IDS % 17), logits(tuned, IDS % 17))
    (tmp_path / "merge.yaml").write_text("operations:\n  - op: merge_adapters\n")
    run("apply", "merge.yaml", "peft:adapter", "-o", "merged", cwd=tmp_path)
    merged = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits(merged, IDS % 17), logits(tuned, IDS % 17))
    assert (tmp_path / "merged" / "tokenizer.json").is_file()


@quiet
def test_convolutions_of_torchvision_are_adapted_exported_opened_and_merged(tmp_path):
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=5).eval()
    torch.save(network.state_dict(), tmp_path / "resnet.pth")
    images = torch.randn(2, 3, 64, 64)
    operation = Peft(method="lora", targets="layer3, fc", config={"r": 4})
    edited = perturbed(surgeon.apply(tmp_path / "resnet.pth", [operation])).eval()
    artifact = surgeon.save(edited, tmp_path / "artifact")
    export_adapter(artifact, tmp_path / "adapter", base=tmp_path / "resnet.pth")
    alone = peft.PeftModel.from_pretrained(network, str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        expected = edited(images)
        assert torch.equal(alone(images), expected)
        assert torch.equal(surgeon.load(f"peft:{tmp_path / 'adapter'}").eval()(images), expected)
        merged = surgeon.apply(f"peft:{tmp_path / 'adapter'}", [MergeAdapters()]).eval()
        torch.testing.assert_close(merged(images), expected, rtol=1e-4, atol=1e-4)
    reference = alone.merge_and_unload().state_dict()
    assert all(torch.equal(tensor, reference[name]) for name, tensor in merged.state_dict().items())


@quiet
def test_edits_before_the_adapter_are_named_by_the_export(tmp_path):
    saved(bert(), tmp_path / "base")
    operations = [surgeon.ReplaceHead(classes=4), Peft(targets="**.query", config={"r": 2})]
    edited = surgeon.apply(tmp_path / "base", operations)
    surgeon.save(edited, tmp_path / "artifact")
    assert "replace_head" in run("export-adapter", "artifact", "-o", "adapter", cwd=tmp_path)


@pytest.mark.parametrize(
    ("method", "targets", "config"),
    [
        ("lora", "**.query", {"r": 2, "bias": "lora_only"}),
        ("lora", "**.query", {"r": 2, "bias": "all"}),
        ("lora", "**.query", {"r": 2, "lora_bias": True}),
        ("lora", "**.query, **.key", {"r": 2, "rank_pattern": {"key": 4}, "alpha_pattern": {"key": 3}}),
        ("dora", "@embeddings, **.query", {"r": 2}),
        ("ia3", "**.query, **.intermediate.dense", {"feedforward_modules": "**.intermediate.dense"}),
        ("beft", "**.query", {}),
    ],
)
@quiet
def test_what_trains_beside_the_adapter_is_exported_opened_and_merged(method, targets, config, tmp_path):
    base = saved(bert(), tmp_path / "base")
    operation = Peft(method=method, targets=targets, config=config, modules_to_save="@head")
    edited = perturbed(surgeon.apply(base, [operation]))
    expected = logits(edited)
    export_adapter(surgeon.save(edited, tmp_path / "artifact"), tmp_path / "adapter")
    network = transformers.BertForSequenceClassification.from_pretrained(base)
    alone = peft.PeftModel.from_pretrained(network, str(tmp_path / "adapter"))
    assert torch.equal(logits(alone), expected)
    assert torch.equal(logits(surgeon.load(f"peft:{tmp_path / 'adapter'}")), expected)
    merged = surgeon.apply(f"peft:{tmp_path / 'adapter'}", [MergeAdapters()])
    torch.testing.assert_close(logits(merged), expected)
    reference = alone.merge_and_unload().state_dict()
    assert all(torch.equal(tensor, reference[name]) for name, tensor in merged.state_dict().items())


@quiet
def test_the_recipe_of_the_readme_runs(tmp_path):
    root = Path(__file__).parents[3]
    recipe, digits = root / "plugins/surgeon-peft/recipe.yaml", root / "recipes/digits.pt"
    run("apply", recipe, digits, "-o", "lora", "--set", "train.epochs=1", cwd=tmp_path)
    printed = run("export-adapter", "lora", "-o", "adapter", "--base", digits, cwd=tmp_path)
    assert "replace_head" in printed
    assert "torchvision" not in run("inspect", "peft:adapter", cwd=tmp_path).splitlines()[0]


@quiet
def test_an_opened_adapter_can_be_exported_again(theirs, tmp_path):
    folder, expected = theirs
    export_adapter(f"peft:{folder}", tmp_path / "again", base=tmp_path / "base")
    assert torch.equal(logits(surgeon.load(f"peft:{tmp_path / 'again'}")), expected)
