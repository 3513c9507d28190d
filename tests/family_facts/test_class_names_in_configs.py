"""Names of classes in configs: every field that has them is written, and they are read in their order."""

from __future__ import annotations

import pytest
import transformers

from surgeon.families.config import NetworkConfig
from surgeon.families.transformers.fields import TRANSFORMERS_CONFIG

NAMES = ("cat", "dog", "owl")


def fields_of(config):
    return NetworkConfig(config, TRANSFORMERS_CONFIG)


def timm_wrapper():
    return transformers.TimmWrapperConfig.from_dict({"num_classes": 3, "label_names": ["x", "y", "z"]})


@pytest.mark.parametrize("make", [lambda: transformers.BertConfig(num_labels=3), timm_wrapper])
def test_names_that_are_set_are_those_that_the_config_reads_from_its_file(make):
    config = make()
    fields_of(config).set_labels(NAMES, None)
    again = type(config).from_dict(config.to_dict())
    assert again.id2label == dict(enumerate(NAMES))
    assert again.label2id == {name: number for number, name in enumerate(NAMES)}
    assert fields_of(again).class_names() == NAMES


def test_names_in_a_file_are_read_by_their_numbers_and_numbered_ones_are_none():
    assert fields_of({"id2label": {"10": "k", "9": "j"}}).class_names() == ("j", "k")
    assert fields_of({"label_names": ["b", "a"]}).class_names() == ("b", "a")
    assert fields_of({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}).class_names() == ()
    assert fields_of({"id2label": {"a": "b"}}).class_names() == ()
    assert fields_of(transformers.BertConfig()).class_names() == ()
