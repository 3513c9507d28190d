"""prune_heads: which heads go, with grouped queries too; where the class stays stock; what is refused."""

from __future__ import annotations

import pytest
import torch
from prune_networks import IDS, IMAGES, bert, gpt2, llama, notes, outputs, phi3, t5, torchvision_vit, vit
from surgeon_prune import PruneHeads, PruneMlp
from surgeon_prune.multihead import MultiheadAttention
from torch import nn

import surgeon
from surgeon.testing import check_operations


def test_it_keeps_what_surgeon_promises_of_every_operation():
    check_operations(llama, [PruneHeads(keep=2)], (IDS,))
    check_operations(torchvision_vit, [PruneHeads(keep=1)], (IMAGES,))


@pytest.mark.parametrize(
    ("build", "args", "reader"),
    [
        (llama, (IDS,), "model.layers.{}.self_attn.o_proj"),
        (bert, (IDS,), "bert.encoder.layer.{}.attention.output.dense"),
        (gpt2, (IDS,), "transformer.h.{}.attn.c_proj"),
        (vit, (IMAGES,), "vit.layers.{}.attention.o_proj"),
        (torchvision_vit, (IMAGES,), "encoder.layers.encoder_layer_{}.self_attention.out_proj"),
    ],
)
def test_the_result_computes_what_the_network_does_with_silent_heads(build, args, reader):
    model = build()
    silenced = [slice(8, 16), slice(24, 32)] if build is not llama else [slice(0, 16)]

    def silence(factor):
        with torch.no_grad():
            for block in (0, 1):
                layer = model.get_submodule(reader.format(block))
                reads = layer.weight if type(layer).__name__ == "Conv1D" else layer.weight.T
                for entries in silenced:
                    reads[entries] *= factor

    silence(1e-3)
    pruned = surgeon.apply(model, [PruneHeads(keep=2)])
    silence(0.0)
    torch.testing.assert_close(outputs(pruned, *args), outputs(model, *args), rtol=1e-4, atol=1e-4)


def test_from_pretrained_alone_loads_the_result_with_grouped_queries(tmp_path):
    operations = [PruneHeads(keep=2), PruneMlp(keep=0.5)]
    pruned = surgeon.apply(llama(), operations)
    attention = pruned.model.layers[0].self_attn
    assert (pruned.config.num_attention_heads, pruned.config.num_key_value_heads, pruned.config.head_dim) == (2, 1, 8)
    assert attention.q_proj.weight.shape == (16, 32)
    assert attention.k_proj.weight.shape == (8, 32)
    stock = type(pruned).from_pretrained(surgeon.save(pruned, tmp_path / "artifact"))
    assert torch.equal(outputs(stock, IDS), outputs(pruned, IDS))
    generated = stock.generate(IDS, max_new_tokens=4, do_sample=False)
    assert torch.equal(generated, pruned.generate(IDS, max_new_tokens=4, do_sample=False))


def test_query_heads_go_from_every_group_alike(tmp_path):
    model = llama(num_attention_heads=8, hidden_size=32)
    pruned = surgeon.apply(model, [PruneHeads(keep=4, unit="queries")])
    assert (pruned.config.num_attention_heads, pruned.config.num_key_value_heads) == (4, 2)
    old, new = model.model.layers[0].self_attn, pruned.model.layers[0].self_attn
    assert torch.equal(new.k_proj.weight, old.k_proj.weight)
    assert new.num_key_value_groups == 2
    rows = [next(i for i in range(8) if torch.equal(old.q_proj.weight[4 * i], row)) for row in new.q_proj.weight[::4]]
    assert sorted(row // 4 for row in rows) == [0, 0, 1, 1]
    stock = type(pruned).from_pretrained(surgeon.save(pruned, tmp_path / "artifact"))
    assert torch.equal(outputs(stock, IDS), outputs(pruned, IDS))


def test_where_no_config_says_it_the_plan_says_so_and_surgeon_loads_it(tmp_path):
    assert "no config of BertForSequenceClassification builds this" in notes(surgeon.plan(bert(), [PruneHeads(keep=2)]))
    pruned = surgeon.apply(bert(), [PruneHeads(keep=2)])
    assert pruned.config.num_attention_heads == 4
    path = surgeon.save(pruned, tmp_path / "artifact")
    assert not (path / "config.json").exists()
    assert torch.equal(outputs(surgeon.load(path, arch=bert), IDS), outputs(pruned, IDS))


def test_a_multihead_attention_becomes_a_module_that_computes_the_same():
    torch.manual_seed(0)
    reference = nn.MultiheadAttention(16, 4, batch_first=True)
    module = MultiheadAttention(16, 4, 4, bias=True, dropout=0.0, batch_first=True)
    module.load_state_dict(
        {name.replace("in_proj_", "in_proj."): value for name, value in reference.state_dict().items()}
    )
    query, key = torch.randn(2, 5, 16), torch.randn(2, 7, 16)
    nn.init.normal_(reference.in_proj_bias)
    module.in_proj.bias = reference.in_proj_bias
    padding = torch.zeros(2, 7, dtype=torch.bool)
    padding[1, 4:] = True
    mask = torch.randn(5, 7)
    for options in ({}, {"key_padding_mask": padding}, {"attn_mask": mask}, {"attn_mask": mask > 1}):
        for need in (True, False):
            expected = reference(query, key, key, need_weights=need, **options)
            actual = module(query, key, key, need_weights=need, **options)
            torch.testing.assert_close(actual[0], expected[0])
            assert (actual[1] is None) is (expected[1] is None)
            if need:
                torch.testing.assert_close(actual[1], expected[1])


def test_a_transformer_encoder_of_torch_keeps_computing_in_eval_mode():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    tokens = torch.randn(2, 5, 16)
    with torch.no_grad():
        for block in model.layers:
            block.self_attn.out_proj.weight[:, 4:12] *= 1e-4
            for first in (4, 20, 36):  # their queries, keys and values
                block.self_attn.in_proj_weight[first : first + 8] *= 0.1
    pruned = surgeon.apply(model, [PruneHeads(keep=2, at="layers.*")], inputs=[[2, 5, 16]]).eval()
    with torch.no_grad():
        for block in model.layers:
            block.self_attn.out_proj.weight[:, 4:12] = 0
        torch.testing.assert_close(pruned(tokens), model(tokens), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "operation", "message"),
    [
        (t5, PruneHeads(keep=2), "relative_attention_bias.*may have an entry for each head"),
        (phi3, PruneHeads(keep=2), "does not run without them"),
        (llama, PruneHeads(keep=3), "in steps of 2"),
        (llama, PruneHeads(keep=2, at="**.mlp"), "no attention layers of a known layout"),
    ],
)
def test_what_cannot_be_is_refused(build, operation, message):
    with pytest.raises(surgeon.OperationError, match=message):
        surgeon.plan(build(), [operation])


def test_an_order_of_heads_that_is_not_known_is_refused_rather_than_guessed():
    class Mixed(nn.Module):
        """Heads are interleaved: entry i belongs to head i % 4."""

        def __init__(self):
            super().__init__()
            self.num_heads, self.head_dim = 4, 4
            self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(16, 16) for _ in range(4))

        def forward(self, x):
            q, k, v = (
                layer(x).unflatten(-1, (-1, self.num_heads)).movedim(-1, 1)
                for layer in (self.q_proj, self.k_proj, self.v_proj)
            )
            heads = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out_proj(heads.movedim(1, -1).flatten(2))

    torch.manual_seed(0)
    model = nn.Sequential(Mixed(), nn.ReLU(), nn.Linear(16, 3))
    with pytest.raises(surgeon.OperationError, match="computes something else without units"):
        surgeon.plan(model, [PruneHeads(keep=2, at="0")], inputs=[[2, 5, 16]])
