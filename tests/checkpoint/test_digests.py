"""A sealed manifest can be read again, whatever the names in it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from families import vgg

import surgeon
from surgeon.checkpoint.digests import check_manifest, sealed
from surgeon.checkpoint.jsonfiles import parse_object
from surgeon.errors import VerificationError

NOT_UTF8 = os.fsdecode(b"caf\xe9")


def test_halves_of_characters_are_written_as_their_escapes() -> None:
    manifest = {"format": 3, "source": f"{NOT_UTF8}.pt", "notes": [NOT_UTF8, "déjà vu"], "by": {NOT_UTF8: 1}}
    again = parse_object(json.dumps(sealed(manifest)))
    assert again["source"] == r"caf\udce9.pt"
    assert again["notes"] == [r"caf\udce9", "déjà vu"]
    check_manifest(again, "here")
    with pytest.raises(VerificationError, match="has changed"):
        check_manifest({**again, "source": "cafe.pt"}, "here")


@pytest.mark.parametrize("out", ["out", "out.safetensors", "out.pt"])
def test_a_checkpoint_whose_name_is_not_utf8_is_operated_on(tmp_path: Path, out: str) -> None:
    source = tmp_path / f"{NOT_UTF8}.pt"
    torch.save(vgg().state_dict(), source)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("operations: [{op: freeze, sites: features}]\n")
    surgeon.run_recipe(source, recipe, tmp_path / out, arch="python:families:vgg")
    again = surgeon.load(tmp_path / out, trust_code=["families"])
    assert surgeon.record_of(again).source.endswith(r"caf\udce9.pt")
