"""prune_blocks: the blocks that change their input least go."""

from __future__ import annotations

import json

import pytest
import torch
from prune_networks import IDS, IMAGES, bert, llama, notes, outputs, resnet, vit
from surgeon_prune import PruneBlocks, PruneHeads, PruneMlp
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import surgeon
from surgeon.pipeline.prepare import prepare
from surgeon.testing import check_operations

DIGITS = {"source": "digits", "per_class": 2, "size": 32, "channels": 3}


def idle(model, positions):
    """Make blocks of a Llama or ViT add (almost) nothing to the stream."""
    with torch.no_grad():
        for position in positions:
            block = model.base_model.layers[position]
            for layer in (getattr(block, "self_attn", None) or block.attention).o_proj, *block.mlp.children():
                for parameter in layer.parameters():
                    parameter.mul_(1e-3)
    return model


def network():
    return idle(vit(), [0])


def test_it_keeps_what_surgeon_promises_of_every_operation():
    check_operations(network, [PruneBlocks(keep=1, data=DIGITS, samples=8)], (IMAGES,))


def test_an_idle_block_goes_and_the_result_computes_nearly_the_same():
    model = network()
    operation = PruneBlocks(keep=1, data=DIGITS, samples=8)
    pruned = surgeon.apply(model, [operation])
    assert torch.equal(pruned.vit.layers[0].mlp.fc1.weight, model.vit.layers[1].mlp.fc1.weight)
    assert pruned.config.num_hidden_layers == 1
    torch.testing.assert_close(outputs(pruned, IMAGES), outputs(model, IMAGES), rtol=1e-2, atol=1e-2)
    assert "influence of the blocks of vit.layers: 0: 0.000, 1: " in notes(prepare(model, [operation]).plan)
    assert "this plan assumes" in notes(surgeon.plan(model, [operation]))


@pytest.fixture
def texts(tmp_path):
    """A Llama of four blocks with its tokenizer in a folder, of which two do nothing, and texts."""
    model = idle(llama(num_hidden_layers=4), [1, 2])
    model.save_pretrained(tmp_path / "model")
    words = ["<end>", *(f"w{i}" for i in range(60))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<end>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(tmp_path / "model")
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(1, 60, (40, 24), generator=generator).tolist()
    lines = [json.dumps({"text": " ".join(f"w{i}" for i in row)}) for row in rows]
    (tmp_path / "texts.jsonl").write_text("\n".join(lines))
    return tmp_path, {"source": "corpus", "path": str(tmp_path / "texts.jsonl"), "max_length": 16}


def test_texts_are_read_with_the_tokenizer_of_the_checkpoint_and_the_result_is_stock(texts):
    folder, data = texts
    operations = [
        PruneBlocks(keep=2, data=data, samples=8),
        PruneHeads(keep=2, by="activations", data=data, samples=8),
        PruneMlp(keep=0.5, by="activations", data=data, samples=8),
    ]
    pruned = surgeon.apply(folder / "model", operations)
    stock = type(pruned).from_pretrained(surgeon.save(pruned, folder / "pruned"))
    assert stock.config.num_hidden_layers == 2
    assert torch.equal(outputs(stock, IDS), outputs(pruned, IDS))
    before = surgeon.load(folder / "model")
    norms = [pruned.model.layers[i].input_layernorm for i in (0, 1)]
    assert [norm.weight.shape for norm in norms] == [(32,), (32,)]
    assert torch.isin(pruned.model.layers[1].mlp.up_proj.weight, before.model.layers[3].mlp.up_proj.weight).all()


def test_blocks_that_change_the_shape_of_their_input_stay():
    pruned = surgeon.apply(resnet(), [PruneBlocks(keep=1, stack="layer2", data=DIGITS, samples=8)])
    assert len(pruned.layer2) == 1
    assert pruned.layer2[0].downsample is not None


@pytest.mark.parametrize(
    ("build", "fields", "message"),
    [
        (resnet, {"keep": 1}, "4 stacks of blocks; say which one"),
        (vit, {"keep": 3}, "has 2 blocks; keep asks for 3"),
        (bert, {"keep": 1, "stack": "bert.pooler"}, "bert.pooler has no repeated blocks"),
    ],
)
def test_what_cannot_be_is_refused(build, fields, message):
    with pytest.raises(surgeon.OperationError, match=message):
        surgeon.plan(build(), [PruneBlocks(data=DIGITS, samples=4, **fields)])
