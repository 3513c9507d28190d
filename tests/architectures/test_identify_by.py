"""What providers of plugins identify by: names and shapes, with digests where they have many networks."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from surgeon.architectures.fingerprint_table import fingerprint_table
from surgeon.architectures.identify_by import identify_by
from surgeon.checkpoint.formats import memory_checkpoint
from surgeon.errors import ArchitectureError
from surgeon.interfaces.architecture import ArchitectureProvider
from surgeon.interfaces.architecture_name import Architecture

WIDTHS = {"thin": (4, "ReLU"), "wide": (16, "ReLU"), "wide_gelu": (16, "GELU"), "thin_again": (4, "ReLU")}


class Lab(ArchitectureProvider):
    scheme = "lab"

    def __init__(self) -> None:
        self.built: list[str] = []

    def names(self):
        return list(WIDTHS)

    def build(self, architecture):
        self.require(architecture.name)
        self.built.append(architecture.name)
        return self.network(architecture.name, **architecture.options)

    @staticmethod
    def network(name, classes=10, channels=3):
        width, activation = WIDTHS[name]
        layers = [nn.Conv2d(channels, width, 3), getattr(nn, activation)(), nn.Linear(width, 2 * classes)]
        return nn.Sequential(*layers)


def state(name, **options):
    return memory_checkpoint(Lab.network(name, **options).state_dict())


def table(*names):
    fingerprints = fingerprint_table(Lab(), names or None, vary={"classes": 7, "channels": 5})
    return json.loads(json.dumps(fingerprints))


def test_a_table_names_the_network_and_only_that_is_built():
    provider = Lab()
    match = identify_by(provider, state("thin"), table=table("thin", "wide"))
    assert match.architecture == Architecture(scheme="lab", name="thin")
    assert provider.built == ["thin"]


def test_options_are_read_from_the_shapes():
    match = identify_by(Lab(), state("wide", classes=4, channels=1), table=table("thin", "wide"))
    assert match.architecture.options == {"classes": 4, "channels": 1}


def test_a_wrapped_file_is_identified_and_another_is_not():
    wrapped = {f"module.{name}": tensor for name, tensor in Lab.network("thin").state_dict().items()}
    assert identify_by(Lab(), memory_checkpoint(wrapped), table=table("thin")).architecture.name == "thin"
    assert identify_by(Lab(), memory_checkpoint({"weight": torch.ones(2)}), table=table()) is None


@pytest.mark.parametrize("made", [None, table()])
def test_networks_that_compute_different_things_are_listed(made):
    with pytest.raises(ArchitectureError, match=r"compute different things: lab/wide, lab/wide_gelu[\s\S]*--arch"):
        identify_by(Lab(), state("wide"), table=made)


def test_a_network_under_two_names_is_taken_and_the_other_is_noted():
    match = identify_by(Lab(), state("thin"), table=table())
    assert match.architecture.name == "thin"
    assert match.notes == ["lab/thin_again builds the same network"]


@pytest.mark.parametrize(("vary", "message"), [({"classes": 10}, "changes no shape"), ({"depth": 2}, "depth")])
def test_an_option_that_is_no_count_is_refused(vary, message):
    with pytest.raises((ArchitectureError, TypeError), match=message):
        fingerprint_table(Lab(), ["thin"], vary=vary)
