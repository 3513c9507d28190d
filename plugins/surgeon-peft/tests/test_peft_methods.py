"""Every method of peft's registry: attached, saved, loaded, exported to peft, opened again, merged; or refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from peft_networks import llama, logits, perturbed, quiet, saved
from pydantic import ValidationError
from surgeon_peft import MergeAdapters, Peft, export_adapter
from surgeon_peft.config import make_config, methods

import surgeon
from surgeon.interfaces.own_packages import OWN_PACKAGES

CONFIGS = {
    "c3a": {"block_size": 8},
    "fourierft": {"n_frequency": 50},
    "ia3": {"init_ia3_weights": False},
    "lora": {"r": 4},
    "miss": {"r": 4},
    "randlora": {"r": 4},
    "road": {"group_size": 8},
    "shira": {"r": 4},
    "vblora": {"vector_length": 8, "num_vectors": 16},
    "waveft": {"n_frequency": 50},
}
"""Sizes that suit a small network; the other methods are tried with their defaults."""


@quiet
def round_trip(method, folder):
    base = saved(llama(), folder / "base")
    operation = Peft(method=method, targets="**.q_proj, **.v_proj", config=CONFIGS.get(method, {}))
    edited = surgeon.apply(base, [operation], seed=5)
    again = surgeon.apply(base, [operation], seed=5)
    for name, tensor in edited.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    perturbed(edited)
    expected = logits(edited)
    artifact = surgeon.save(edited, folder / "artifact")
    assert torch.equal(logits(surgeon.load(artifact)), expected)
    export_adapter(artifact, folder / "adapter")
    alone = PeftModel.from_pretrained(transformers.LlamaForCausalLM.from_pretrained(base), str(folder / "adapter"))
    assert torch.equal(logits(alone), expected)
    reference = f"peft:{folder / 'adapter'}"
    assert torch.equal(logits(surgeon.load(reference)), expected)
    changed = (expected - logits(llama())).abs().max()
    try:
        merged = surgeon.apply(reference, [MergeAdapters()])
    except surgeon.OperationError as error:
        return changed, str(error)
    reloaded = transformers.LlamaForCausalLM.from_pretrained(surgeon.save(merged, folder / "merged"))
    assert torch.equal(logits(reloaded), logits(merged))
    torch.testing.assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)
    by_peft = alone.merge_and_unload(safe_merge=True).state_dict()
    assert by_peft.keys() == merged.state_dict().keys()
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(tensor, by_peft[name], rtol=0, atol=0)
    return changed, None


ATTACHED = [
    "beft",
    "boft",
    "c3a",
    "deft",
    "delora",
    "fourierft",
    "glora",
    "gralora",
    "hira",
    "hra",
    "ia3",
    "lily",
    "ln_tuning",
    "loha",
    "lokr",
    "lora",
    "miss",
    "oft",
    "peanut",
    "pvera",
    "randlora",
    "road",
    "supertuning",
    "tinylora",
    "vblora",
    "vera",
    "waveft",
]
UNMERGED = {"beft": "has no bias", "lily": "not supported"}
REFUSED = {
    "adalora": "training loop",
    "adamss": "looks at the weights",
    "adaption_prompt": "attention layers",
    "cartridge": "virtual tokens",
    "cpt": "virtual tokens",
    "frod": "looks at the weights",
    "multitask_prompt_tuning": "virtual tokens",
    "osf": "saves it nowhere",
    "p_tuning": "virtual tokens",
    "poly": "number of a task",
    "prefix_tuning": "virtual tokens",
    "prompt_tuning": "virtual tokens",
    "psoft": "saves it nowhere",
    "shadow": "beside the network",
    "shira": "looks at the weights",
    "trainable_tokens": "saves it nowhere",
    "unilora": "saves it nowhere",
    "xlora": "adapters that were trained before",
}


def test_every_method_of_the_registry_is_tried():
    assert sorted([*ATTACHED, *REFUSED]) == sorted(methods())


@pytest.mark.parametrize("method", ATTACHED)
def test_a_method_survives_saving_loading_exporting_and_merging(method, tmp_path):
    changed, refused = round_trip(method, tmp_path)
    assert changed > 1e-3  # the adapter does something
    assert (refused is not None) == (method in UNMERGED)
    if refused is not None:
        assert UNMERGED[method] in refused
        assert f"cannot merge {method}" in refused


@pytest.mark.parametrize("method", REFUSED)
@quiet
def test_a_method_that_cannot_be_part_of_a_network_is_refused_by_name(method):
    with pytest.raises((surgeon.OperationError, ValidationError), match=f"(?s){method}.*{REFUSED[method]}"):
        surgeon.plan(llama(), [Peft(method=method, targets="**.q_proj, **.v_proj", config=CONFIGS.get(method, {}))])


def test_the_table_in_the_readme_is_what_these_tests_say():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (\w+)", readme, re.MULTILINE))
    assert rows == {
        **dict.fromkeys(ATTACHED, "merges"),
        **dict.fromkeys(UNMERGED, "attached"),
        **dict.fromkeys(REFUSED, "refused"),
    }


@pytest.mark.parametrize("method", OWN_PACKAGES["surgeon-peft"].methods)
def test_what_surgeon_says_of_a_missing_method_works(method: str) -> None:
    """Surgeon answers ``op: lora`` with ``op: peft`` and ``method: lora``."""
    assert make_config(method, {}).peft_type is not None
