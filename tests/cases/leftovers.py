"""Folders with tensors that their declared class has no use for: as from_pretrained has them (13.13)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from cases.harness import Outcome, case, either, equal, expect, right, succeed
from cases.material import Material
from cases.wrapped_files import Tensors, tensors

# --- folders of transformers with leftovers --------------------------------------------------------------------------

SMALL = {"vocab_size": 60, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
ENCODER = {**SMALL, "max_position_embeddings": 40, "pad_token_id": 0}


def pooler(prefix: str) -> Tensors:
    """A pooler that the declared class has no use for."""
    return {f"{prefix}.pooler.dense.weight": torch.randn(32, 32), f"{prefix}.pooler.dense.bias": torch.zeros(32)}


def old_names(name: str) -> str:
    """The names of TensorFlow's days."""
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


Leftover = tuple[str, dict[str, Any], str, Callable[[Tensors], Tensors]]
LEFTOVERS: dict[str, Leftover] = {
    "bert": (
        "BertForPreTraining",
        ENCODER,
        "BertForMaskedLM",
        lambda s: {old_names(k): v for k, v in s.items() if "predictions.decoder" not in k},
    ),
    "bert, new names": ("BertForPreTraining", ENCODER, "BertForMaskedLM", lambda s: s),
    "xlm-roberta": (
        "XLMRobertaForMaskedLM",
        {**ENCODER, "pad_token_id": 1},
        "XLMRobertaForMaskedLM",
        lambda s: {**s, **pooler("roberta")},
    ),
    "camembert": (
        "CamembertForMaskedLM",
        {**ENCODER, "pad_token_id": 1},
        "CamembertForMaskedLM",
        lambda s: {**s, **pooler("roberta")},
    ),
    "albert": (
        "AlbertForMaskedLM",
        {**ENCODER, "embedding_size": 16},
        "AlbertForMaskedLM",
        lambda s: {**s, "albert.pooler.weight": torch.randn(32, 32), "albert.pooler.bias": torch.zeros(32)},
    ),
    "mpnet": (
        "MPNetForMaskedLM",
        ENCODER,
        "MPNetForMaskedLM",
        lambda s: {**s, **pooler("mpnet"), "mpnet.embeddings.position_ids": torch.arange(40)[None]},
    ),
    "layoutlm": (
        "LayoutLMForMaskedLM",
        ENCODER,
        "LayoutLMForMaskedLM",
        lambda s: {
            **s,
            **pooler("layoutlm"),
            "cls.seq_relationship.weight": torch.randn(2, 32),
            "cls.seq_relationship.bias": torch.zeros(2),
        },
    ),
    "electra": (
        "ElectraForPreTraining",
        {**ENCODER, "embedding_size": 16},
        "ElectraForPreTraining",
        lambda s: {
            **{old_names(k): v for k, v in s.items()},
            "electra.embeddings.position_ids": torch.arange(40)[None],
        },
    ),
    "gpt2 without prefix": (
        "GPT2LMHeadModel",
        {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
        "GPT2LMHeadModel",
        lambda s: {
            **{k.removeprefix("transformer."): v for k, v in s.items() if "lm_head" not in k},
            **{f"h.{i}.attn.bias": torch.tril(torch.ones(1, 1, 40, 40)) for i in range(2)},
        },
    ),
    "gpt-neo's masks": (
        "GPTNeoForCausalLM",
        {
            "vocab_size": 60,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 40,
            "window_size": 4,
        },
        "GPTNeoForCausalLM",
        lambda s: {
            **s,
            **{f"transformer.h.{i}.attn.attention.masked_bias": torch.tensor(-1e9) for i in range(2)},
            **{f"transformer.h.{i}.attn.attention.bias": torch.ones(1, 1, 40, 40).bool() for i in range(2)},
        },
    ),
    "pythia": (
        "GPTNeoXForCausalLM",
        {k: v for k, v in ENCODER.items() if k != "pad_token_id"},
        "GPTNeoXForCausalLM",
        lambda s: {
            **s,
            **{
                f"gpt_neox.layers.{i}.attention.{n}": v
                for i in range(2)
                for n, v in (
                    ("bias", torch.ones(1, 1, 40, 40).bool()),
                    ("masked_bias", torch.tensor(-1e9)),
                    ("rotary_emb.inv_freq", torch.ones(4)),
                )
            },
        },
    ),
    "vit with a pooler": (
        "ViTForImageClassification",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 64,
            "image_size": 32,
            "patch_size": 8,
        },
        "ViTForImageClassification",
        lambda s: {**s, **pooler("vit")},
    ),
    "bart": (
        "BartForSequenceClassification",
        {
            "vocab_size": 60,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "max_position_embeddings": 40,
            "pad_token_id": 1,
            "num_labels": 3,
        },
        "BartForSequenceClassification",
        lambda s: {**s, "model.encoder.version": torch.ones(1), "model.decoder.version": torch.ones(1)},
    ),
    "reward model": (
        "LlamaForCausalLM",
        {**SMALL, "num_key_value_heads": 2},
        "LlamaForCausalLM",
        lambda s: {**s, "v_head.summary.weight": torch.randn(1, 32), "v_head.summary.bias": torch.zeros(1)},
    ),
    "llama of old": (
        "LlamaForCausalLM",
        {**SMALL, "num_key_value_heads": 2},
        "LlamaForCausalLM",
        lambda s: {**s, **{f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}},
    ),
    "distilbert": (
        "DistilBertForMaskedLM",
        {"vocab_size": 60, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 40},
        "DistilBertForMaskedLM",
        lambda s: {**s, "distilbert.embeddings.position_ids": torch.arange(40)[None]},
    ),
    "a score head of another count": (
        "BertForSequenceClassification",
        {**ENCODER, "num_labels": 5},
        "BertForMaskedLM",
        lambda s: s,
    ),
}


def save_leftover(path: Path, how: Leftover) -> None:
    """A folder as on the hub: what the class saved, changed by hand, under the name of the declared class."""
    import transformers

    name, config, declared, change = how
    cls = getattr(transformers, name)
    torch.manual_seed(0)
    model = cls(cls.config_class(**config))
    path.mkdir(parents=True)
    torch.save({key: value.clone() for key, value in change(tensors(model)).items()}, path / "pytorch_model.bin")
    stored = json.loads(model.config.to_json_string(use_diff=False))
    stored.pop("dtype", None)
    (path / "config.json").write_text(json.dumps({**stored, "architectures": [declared]}))


@case("13.13", of=LEFTOVERS, quick=["bert", "albert", "vit with a pooler", "gpt-neo's masks"])
def leftovers_of_pretraining(material: Material, how: Leftover) -> Outcome:
    """The same tensors as from_pretrained of the declared class gives, and a note on the rest."""
    import transformers

    import surgeon

    folder = material.folder / "model"
    save_leftover(folder, how)

    def attempt() -> Outcome:
        stock, loading_info = getattr(transformers, how[2]).from_pretrained(folder, output_loading_info=True)
        model = surgeon.load(folder)
        mine, theirs = model.state_dict(), stock.state_dict()
        equal(set(mine), set(theirs), "names of tensors")
        drawn = set(loading_info["missing_keys"])
        differing = [name for name in theirs if name not in drawn and not torch.equal(mine[name], theirs[name])]
        expect(not differing, f"differ from from_pretrained: {differing[:4]}")
        kinds = (torch.nn.Embedding, torch.nn.Conv2d)
        first = next(name for name, module in stock.named_modules() if isinstance(module, kinds))
        plan = succeed("plan", material.recipe([{"op": "freeze", "sites": first}]), folder)
        ignored = [name for name in loading_info["unexpected_keys"] if "position_ids" not in name]
        expect(
            not ignored or "left out" in plan.said or any(name in plan.said for name in ignored),
            f"{ignored[:3]} are left out and the plan is silent",
        )
        return right(f"{len(theirs)} tensors as from_pretrained has them, {len(ignored)} left out")

    return either(attempt, "lacks")
