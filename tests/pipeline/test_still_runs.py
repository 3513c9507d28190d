"""A result that does not run although its source does is refused, and from_pretrained is promised where it holds."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from families import DEPTH, TEXT, build
from torch import nn

import surgeon
from surgeon import Operation, OperationError, Recipe, Surgery, Truncate
from surgeon.pipeline.prepare import prepare


class Misfit(Operation):
    """Put in a layer of the wrong width."""

    def apply(self, model: nn.Module, surgery: Surgery) -> nn.Module:
        surgery.replace("fc", surgery.new(nn.Linear, 7, 3))
        return surgery.model


def test_a_result_that_does_not_run_is_refused_before_anything_is_written():
    with pytest.raises(OperationError, match="the source runs, but the result does not") as caught:
        surgeon.plan(build("resnet"), [Misfit()])
    assert "must_run: false" in str(caught.value)


def test_a_recipe_may_want_a_result_that_does_not_run():
    plan = surgeon.plan(build("resnet"), Recipe(operations=[Misfit()], must_run=False))
    assert any(note.startswith("outputs not traced") for note in plan.notes)


def test_a_network_that_could_not_be_run_before_says_nothing():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, thing):
            return self.fc(thing.what_nobody_knows)

    assert surgeon.plan(Odd(), [Misfit()]).tensors


# ---- from_pretrained


def gpt2(scaled):
    config = tf.GPT2Config(
        vocab_size=97, n_embd=32, n_layer=4, n_head=2, n_positions=64, bos_token_id=0, eos_token_id=0,
        scale_attn_by_inverse_layer_idx=scaled,
    )  # fmt: skip
    return tf.GPT2LMHeadModel(config)


def diff_llama():
    return tf.DiffLlamaForCausalLM(tf.DiffLlamaConfig(**TEXT, **DEPTH, num_key_value_heads=2))


@pytest.mark.parametrize("make", [lambda: gpt2(scaled=True), diff_llama], ids=["gpt2", "diff_llama"])
def test_a_layer_that_computes_from_its_place_takes_the_promise_away(make, tmp_path):
    prepared = prepare(make(), [Truncate(keep_blocks=[0, 3])])
    assert any("from_pretrained would give other outputs" in note for note in prepared.plan.notes)
    prepared.write(tmp_path / "cut")
    assert not (tmp_path / "cut" / "config.json").exists()
    inputs = torch.arange(8)[None] + 3
    with torch.no_grad():
        expected = prepared.materialise().eval()(inputs).logits
        assert torch.equal(surgeon.load(tmp_path / "cut")(inputs).logits, expected)


@pytest.mark.parametrize("keep", [[0, 1], [0, 3]])
def test_the_promise_holds_where_the_config_says_all(keep, tmp_path):
    prepared = prepare(gpt2(scaled=keep == [0, 1]), [Truncate(keep_blocks=keep)])
    prepared.write(tmp_path / "cut")
    stock = tf.GPT2LMHeadModel.from_pretrained(tmp_path / "cut").eval()
    inputs = torch.arange(8)[None] + 3
    with torch.no_grad():
        assert torch.equal(stock(inputs).logits, prepared.materialise().eval()(inputs).logits)
