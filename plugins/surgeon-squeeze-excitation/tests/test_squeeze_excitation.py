"""The plugin, as it is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torchvision
from surgeon_squeeze_excitation import SqueezeExcitation

import surgeon
from surgeon.testing import check_operations


def build():
    torch.manual_seed(0)
    return torchvision.models.resnet18(num_classes=5)


def test_it_holds_to_what_surgeon_promises_of_every_operation():
    check_operations(build, [SqueezeExcitation(reduction=8)], (torch.randn(2, 3, 64, 64),))


def test_the_network_computes_nearly_what_it_did_before():
    model = build().eval()
    images = torch.randn(2, 3, 64, 64)
    edited = surgeon.apply(model, [SqueezeExcitation(at="layer1.*")])
    with torch.no_grad():
        torch.testing.assert_close(edited(images), model(images), rtol=0.02, atol=0.02)


def test_the_gates_weigh_channels():
    edited = surgeon.apply(build(), [SqueezeExcitation(at="layer1[1]", opening=-50.0)])
    outputs = []
    edited.layer1.register_forward_hook(lambda module, args, output: outputs.append(output))
    edited(torch.randn(2, 3, 64, 64))
    assert outputs[0].abs().max() < 1e-6


def test_a_site_without_channels_is_refused():
    with pytest.raises(surgeon.OperationError, match="fc produces"):
        surgeon.plan(build(), [SqueezeExcitation(at="fc")])


def test_the_installed_plugin_is_found_by_the_command_line():
    listing = subprocess.run([sys.executable, "-m", "surgeon", "ops"], capture_output=True, text=True, check=True)
    assert "squeeze_excitation" in listing.stdout
