"""Stock reload is promised only where it was tried; what depends on the depth is sliced, or refused (13.16)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from cases.deep_networks import DECODER, NETWORKS, SOUND, Network, wave, words
from cases.harness import Outcome, case, either, equal, expect, right
from cases.material import Material

QUICK = ("gpt2, inverse layer index", "diffllama", "hubert, weighted sum")


def built(network: Network) -> nn.Module:
    """The network, with norms and biases that are not zeros and ones."""
    import transformers

    cls = getattr(transformers, network[0])
    torch.manual_seed(0)
    model: nn.Module = cls(cls.config_class(**network[1])).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.1)
    return model


def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """What the network says."""
    with torch.no_grad():
        out = model.eval()(**inputs)
    return getattr(out, "logits", None) if getattr(out, "logits", None) is not None else out[0]


PLAIN = (int, float, bool, str, type(None))


def facts(module: nn.Module) -> dict[str, Any]:
    """The plain numbers that a module computes with."""
    skipped = ("layer_idx", "training", "layer_id", "layer_index", "block_idx", "layer_number")
    return {name: value for name, value in vars(module).items() if isinstance(value, PLAIN) and name not in skipped}


@case("13.16", of=NETWORKS, quick=QUICK)
def thinned(material: Material, network: Network) -> Outcome:
    import transformers

    import surgeon

    source, inputs = built(network), network[3]()
    stack = source.get_submodule(network[2])
    count, outcomes = len(stack), []
    choices: Sequence[Any] = (sorted({0, 2, count - 1}), sorted({1, count - 2, count - 1}), count // 2)
    for keep in choices:
        indices = keep if isinstance(keep, list) else list(range(keep))
        try:
            model = surgeon.apply(source, [surgeon.Truncate(keep_blocks=keep, stack=network[2])])
        except surgeon.SurgeonError as error:
            expect("bug in" not in str(error), error)
            outcomes.append("refused")
            continue
        out = material.folder / f"{keep}"
        surgeon.save(model, out)
        expected = logits(model, inputs)
        equal(
            (logits(surgeon.load(out), inputs) - expected).abs().max().item(),
            0.0,
            f"{keep}: difference of surgeon.load",
        )
        for number, origin in enumerate(indices):
            pairs = zip(stack[origin].modules(), model.get_submodule(network[2])[number].modules(), strict=True)
            for old, new in pairs:
                differing = {
                    name: (value, facts(new).get(name))
                    for name, value in facts(old).items()
                    if facts(new).get(name) != value
                }
                expect(not differing, f"{keep}: block {origin} computes with other numbers: {differing}")
        if not (out / "config.json").exists():
            outcomes.append("loads with surgeon only")
            continue
        again, loading_info = getattr(transformers, network[0]).from_pretrained(out, output_loading_info=True)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            expect(not loading_info[kind], f"{keep}: {kind} of the stock reload: {loading_info[kind]}")
        difference = (logits(again, inputs) - expected).abs().max().item()
        expect(difference == 0, f"{keep}: the stock reload is {difference} off")
        for name in ("num_feat_extract_layers",):
            if hasattr(source.config, name):
                equal(getattr(again.config, name), getattr(source.config, name), name)
        outcomes.append("stock")
    return (
        right(", ".join(outcomes))
        if any(word != "refused" for word in outcomes)
        else Outcome("refused", ", ".join(outcomes))
    )


@case("13.16", of={"llama": "llama", "gpt2": "gpt2"})
def thinning_is_skipping(material: Material, name: str) -> Outcome:
    """The same outputs as a copy from which the layers were taken by hand."""
    import transformers

    import surgeon

    torch.manual_seed(0)
    if name == "llama":
        source = transformers.LlamaForCausalLM(transformers.LlamaConfig(**DECODER)).eval()
        site = "model.layers"
    else:
        source = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=64, n_embd=32, n_layer=6, n_head=4, n_positions=64)
        ).eval()
        site = "transformer.h"
    by_hand = copy.deepcopy(source)
    parent, last = site.rsplit(".", 1)
    layers = by_hand.get_submodule(site)
    setattr(by_hand.get_submodule(parent), last, nn.ModuleList([layers[0], layers[2], layers[5]]))
    by_hand.config.num_hidden_layers = 3
    model = surgeon.apply(source, [surgeon.Truncate(keep_blocks=[0, 2, 5])])
    with torch.no_grad():
        difference = (
            (model.eval()(**words(), use_cache=False).logits - by_hand(**words(), use_cache=False).logits)
            .abs()
            .max()
            .item()
        )
    equal(difference, 0.0, "difference to skipping by hand")
    cached = model.generate(**words(), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)
    uncached = model.generate(
        **words(), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0, use_cache=False
    )
    expect(torch.equal(cached, uncached), f"generation with a cache differs: {cached[0, 12:]} {uncached[0, 12:]}")
    return right("outputs equal, generation with and without a cache too")


@case("13.16", of={"45 classes": 45, "named": ["a", "b", "c", "d"]})
def a_ctc_vocabulary(material: Material, classes: Any) -> Outcome:
    """A CTC head's classes are its vocabulary: the stock reload has them, or the plan says why not."""
    import transformers

    import surgeon

    torch.manual_seed(0)
    source = material.folder / "ctc"
    transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config(**SOUND)).save_pretrained(source)

    def attempt() -> Outcome:
        model = surgeon.apply(source, [surgeon.ReplaceHead(classes=classes)])
        surgeon.save(model, material.folder / "out")
        expected = logits(model, wave())
        equal(
            (logits(surgeon.load(material.folder / "out"), wave()) - expected).abs().max().item(),
            0.0,
            "difference of surgeon.load",
        )
        if not (material.folder / "out/config.json").exists():
            return right("loads with surgeon only")
        again = getattr(transformers, type(model).__name__).from_pretrained(material.folder / "out")
        equal((logits(again, wave()) - expected).abs().max().item(), 0.0, "difference of the stock reload")
        return right(f"the stock reload is equal: {type(again).__name__}, {tuple(expected.shape)}")

    return either(attempt)
