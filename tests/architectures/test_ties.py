"""Tied tensors of which a file holds two entries: equal ones are tied, different ones are not."""

from __future__ import annotations

import pytest
import torch
import transformers as tf
from families import DEPTH, TEXT
from safetensors.torch import save_file

import surgeon
from surgeon import ArchitectureError, Truncate


def folder_with(path, head):
    """A Qwen2 with tied embeddings whose file has the head too, made from the embedding by ``head``."""
    torch.manual_seed(0)
    model = tf.Qwen2ForCausalLM(tf.Qwen2Config(**TEXT, **DEPTH, num_key_value_heads=2, tie_word_embeddings=True))
    model.save_pretrained(path)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["lm_head.weight"] = head(tensors["model.embed_tokens.weight"])
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    return str(path)


def test_a_head_with_values_of_its_own_is_untied_with_a_note(tmp_path):
    source = folder_with(tmp_path / "source", lambda embedding: embedding + 1)
    notes = surgeon.plan(source, [Truncate(keep_blocks=2)]).notes
    assert any("differ in the file" in note for note in notes)
    edited = surgeon.apply(source, [Truncate(keep_blocks=4)])
    stock = tf.Qwen2ForCausalLM.from_pretrained(source).eval()
    inputs = torch.arange(8)[None]
    with torch.no_grad():
        assert torch.equal(edited(inputs).logits, stock(inputs).logits)
    assert edited.config.tie_word_embeddings is False
    surgeon.save(edited, tmp_path / "edited")
    loaded = surgeon.load(tmp_path / "edited")
    assert torch.equal(loaded.lm_head.weight, edited.lm_head.weight)
    assert not torch.equal(loaded.lm_head.weight, loaded.model.embed_tokens.weight)


def test_a_copy_of_the_embedding_stays_tied(tmp_path):
    source = folder_with(tmp_path / "source", torch.clone)
    edited = surgeon.load(source)
    assert edited.lm_head.weight is edited.model.embed_tokens.weight


def test_a_tie_that_no_setting_governs_is_refused(tmp_path):
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.one = torch.nn.Linear(2, 2, bias=False)
            self.two = torch.nn.Linear(2, 2, bias=False)
            self.two.weight = self.one.weight

    global twice
    twice = Twice
    save_file({"one.weight": torch.zeros(2, 2), "two.weight": torch.ones(2, 2)}, tmp_path / "twice.safetensors")
    with pytest.raises(ArchitectureError, match=r"one\.weight and two\.weight are tied"):
        surgeon.load(tmp_path / "twice.safetensors", arch="python:test_ties:twice")
