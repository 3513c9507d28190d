"""What an operation derives from the source's values is held to its start, not pulled to 0."""

from __future__ import annotations

import torch
import torchvision

import surgeon
from surgeon.training.anatomy import Anatomy
from surgeon.training.conservation import L2SP
from surgeon.training.objectives import call_of
from surgeon.training.penalties import Run


def test_l2_sp_holds_derived_tensors_to_their_start():
    torch.manual_seed(0)
    source = torchvision.models.shufflenet_v2_x0_5(num_classes=3).eval()
    model = surgeon.apply(source, [surgeon.AdaptInput(channels=1), surgeon.ReplaceHead(classes=2)])
    anatomy = Anatomy(model, None)
    first, head = "conv1.0.weight", "fc.weight"
    assert first not in anatomy.kept
    assert first in anatomy.inherited
    assert head not in anatomy.inherited
    run = Run(model, call_of(model, ["x"]), anatomy, {}, set(), lambda source: None, 0)  # type: ignore[arg-type]
    term = L2SP(weight=2.0, new_weight=0.0).begin(run)
    assert term({}, {}).item() == 0, "nothing has moved, so that nothing pulls"
    with torch.no_grad():
        model.get_parameter(first).mul_(0)
    assert term({}, {}).item() > 0
