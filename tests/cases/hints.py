"""What a message suggests works where it is suggested: no circle, no dead end (13.19)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from cases.harness import Outcome, case, expect, right, succeed, surgeon_command
from cases.material import Material
from cases.wrapped_files import TRUNKS, averaged, dino

SEVERAL: dict[str, Callable[[], Any]] = {
    **{name: TRUNKS[name] for name in ("MoCo", "children in features", "segmentation encoder")},
    "DINO": dino,
    "an average beside": averaged,
}


@case("13.19", of=SEVERAL, quick=["MoCo", "segmentation encoder"])
def a_key_that_is_suggested(material: Material, make: Callable[[], Any]) -> Outcome:
    """Follow ``--key NAME`` until nothing is suggested any more: the plan comes, and within three steps."""
    path = material.folder / "file.pth"
    torch.save(make(), path)
    recipe = material.recipe([{"op": "replace_head", "classes": ["a", "b"]}])
    followed: list[str] = []
    for _ in range(4):
        ran = surgeon_command("plan", recipe, path, *(["--key", followed[-1]] if followed else []))
        if ran.code == 0:
            return right(f"planned after --key {followed[-1]}" if followed else "planned at once")
        suggested = re.search(r"--key ([^\s,;]+)", ran.said)
        expect(suggested, f"refused after {followed}, and nothing is suggested: {ran.err}")
        key = suggested[1] if suggested else ""
        expect(key not in followed, f"a circle: {[*followed, key]}: {ran.err}")
        followed.append(key)
    raise AssertionError(f"no plan after {followed}")


@case("13.19", of=("pictures", "texts"), quick=["pictures"])
def advice_runs(material: Material, what: str) -> Outcome:
    """The recipe that advise writes is applied as it is written."""
    from cases.names import review_table, texts

    if what == "pictures":
        model, data = material.vit(num_hidden_layers=2), str(material.pictures(("cat", "dog", "rabbit")))
    else:
        import yaml

        model = material.bert(num_hidden_layers=2)
        data = yaml.safe_dump(texts(review_table(material)), default_flow_style=True, width=10_000).strip()
    out = material.folder / "advice.yaml"
    succeed("advise", "--data", data, "--model", model, "-o", out, "--quiet", folder=material.folder)
    succeed("apply", out, model, "-o", material.folder / "out", "--set", "train.epochs=1", "--quiet")
    return right("written, applied and trained for an epoch")
