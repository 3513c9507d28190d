"""A tied head whose values differ in the file is untied; one that is missing is not drawn (13.15)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cases.harness import Outcome, case, either, equal, expect, refused, right, succeed
from cases.material import Material
from cases.wrapped_files import tensors

QWEN = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
T5 = {
    "vocab_size": 64,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "decoder_start_token_id": 0,
}


def stored(
    folder: Path,
    cls: str,
    config: dict[str, Any],
    change: Callable[[dict[str, Tensor]], object],
    file: str = "safetensors",
) -> nn.Module:
    """Save a network of ``cls`` with its tensors changed by hand."""
    import transformers
    from safetensors.torch import save_file

    torch.manual_seed(0)
    kind = getattr(transformers, cls)
    model = kind(kind.config_class(**config))
    model.save_pretrained(folder)
    values = tensors(model)
    change(values)
    if file == "safetensors":
        save_file(values, folder / "model.safetensors", {"format": "pt"})
    else:
        (folder / "model.safetensors").unlink()
        torch.save(values, folder / "pytorch_model.bin")
    return model


def diverge(values: dict[str, Tensor]) -> None:
    """A head that is not the embedding's any more."""
    values["lm_head.weight"] = values["lm_head.weight"] + 1


TIES: dict[str, tuple[str, dict[str, Any], Callable[[dict[str, Tensor]], object], str]] = {
    "both, differing": ("Qwen2ForCausalLM", {**QWEN, "tie_word_embeddings": True}, diverge, "safetensors"),
    "both, differing, in a bin": ("Qwen2ForCausalLM", {**QWEN, "tie_word_embeddings": True}, diverge, "bin"),
    "both, equal": ("Qwen2ForCausalLM", {**QWEN, "tie_word_embeddings": True}, lambda v: None, "safetensors"),
    "head missing": (
        "Qwen2ForCausalLM",
        {**QWEN, "tie_word_embeddings": True},
        lambda v: v.pop("lm_head.weight"),
        "safetensors",
    ),
    "embedding missing": (
        "Qwen2ForCausalLM",
        {**QWEN, "tie_word_embeddings": True},
        lambda v: v.pop("model.embed_tokens.weight"),
        "safetensors",
    ),
    "one value differs": (
        "Qwen2ForCausalLM",
        {**QWEN, "tie_word_embeddings": True},
        lambda v: v["lm_head.weight"][3].add_(1),
        "safetensors",
    ),
    "T5, differing": ("T5ForConditionalGeneration", T5, diverge, "safetensors"),
    "BERT's decoder, differing": (
        "BertForMaskedLM",
        {
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
        lambda v: v["cls.predictions.decoder.weight"].add_(1),
        "safetensors",
    ),
    "GPT-2, differing": (
        "GPT2LMHeadModel",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        diverge,
        "safetensors",
    ),
}


@case("13.15", of=TIES)
def tied_heads(
    material: Material, how: tuple[str, dict[str, Any], Callable[[dict[str, Tensor]], object], str]
) -> Outcome:
    """What the file holds is what is computed: a head of other values is untied, with a note."""
    import surgeon

    cls, config, change, file = how
    folder = material.folder / "model"
    source = stored(folder, cls, config, change, file)
    values = tensors(source)
    change(values)
    ids = torch.tensor([[3, 9, 20, 33]])

    def attempt() -> Outcome:
        model = surgeon.load(folder).eval()
        with torch.no_grad():
            inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if cls.startswith("T5") else {})}
            hidden: list[Tensor] = []
            out = model.get_output_embeddings()
            handle = out.register_forward_hook(lambda module, given, output: hidden.append((given[0], output)))
            logits = model(**inputs).logits
            handle.remove()
        name = next(key for key in tensors(source) if key.endswith(("lm_head.weight", "decoder.weight")))
        embedding = (
            next(
                key
                for key in values
                if key.endswith(("embed_tokens.weight", "shared.weight", "wte.weight", "word_embeddings.weight"))
            )
            if name not in values
            else name
        )
        expected = hidden[0][0] @ values[name if name in values else embedding].T
        if getattr(out, "bias", None) is not None:
            expected = expected + out.bias
        expect(
            (logits - expected).abs().max() < 1e-4,
            f"logits are {(logits - expected).abs().max():.2f} off those of the file's head",
        )
        differs = name in values and any(
            values[key].shape == values[name].shape and not torch.equal(values[key], values[name])
            for key in values
            if key.endswith(("embed_tokens.weight", "shared.weight", "wte.weight", "word_embeddings.weight"))
        )
        if differs:
            recipe = material.recipe([{"op": "freeze", "all_but": "head"}])
            plan = succeed("plan", recipe, folder)
            expect("tie" in plan.said, f"untied, and the plan is silent: {plan.said[-400:]}")
        return right("untied with a note" if differs else "tied")

    return either(attempt)


@case("13.15")
def an_untied_head_that_is_missing(material: Material) -> Outcome:
    """tie_word_embeddings: false and no head in the file: it would be drawn at random."""
    import surgeon

    folder = material.folder / "model"
    stored(folder, "Qwen2ForCausalLM", {**QWEN, "tie_word_embeddings": False}, lambda v: v.pop("lm_head.weight"))
    return refused(lambda: surgeon.load(folder), "lm_head")


@case("13.15")
def a_vocabulary_that_the_config_does_not_know(material: Material) -> Outcome:
    import surgeon

    folder = material.folder / "model"
    stored(folder, "Qwen2ForCausalLM", {**QWEN, "vocab_size": 72, "tie_word_embeddings": False}, lambda v: None)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": 64}))
    return either(lambda: right(tuple(surgeon.load(folder).lm_head.weight.shape)), "72", "64")


@case("13.15", slow=False)
def an_untied_head_stays_after_surgery(material: Material) -> Outcome:
    """Thinned and saved, the stock reload has the file's head too."""
    import transformers

    import surgeon

    folder = material.folder / "model"
    stored(folder, "Qwen2ForCausalLM", {**QWEN, "tie_word_embeddings": True}, diverge)
    model = surgeon.apply(folder, [surgeon.Truncate(keep_blocks=2)])
    surgeon.save(model, material.folder / "out")
    if not (material.folder / "out/config.json").exists():
        return right("no stock config is written")
    again = transformers.AutoModelForCausalLM.from_pretrained(material.folder / "out").eval()
    ids = torch.tensor([[3, 9, 20, 33]])
    with torch.no_grad():
        difference = (again(ids).logits - model.eval()(ids).logits).abs().max().item()
    equal(difference, 0.0, "difference of the stock reload")
    return right("the stock reload is untied too")
