"""The graph of what modules read from one another."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models
from transformers import LlamaConfig, LlamaForCausalLM

import surgeon
from surgeon.graph.flow import FlowGraph, flow_graph
from surgeon.graph.trace import trace


def graph_of(model: nn.Module) -> FlowGraph:
    return flow_graph(model, trace(model))


def pairs(graph: FlowGraph) -> set[tuple[str, str]]:
    return {(edge.source, edge.target) for edge in graph.edges}


@pytest.fixture(scope="module")
def resnet() -> FlowGraph:
    with torch.device("meta"):
        return graph_of(models.resnet18())


@pytest.fixture(scope="module")
def llama() -> FlowGraph:
    config = LlamaConfig(
        num_hidden_layers=2, hidden_size=32, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64
    )
    with torch.device("meta"):
        return graph_of(LlamaForCausalLM(config))


def test_a_chain_of_layers_runs_from_the_input_to_the_output(resnet: FlowGraph) -> None:
    chain = {("<x", "conv1"), ("conv1", "bn1"), ("bn1", "relu"), ("relu", "maxpool"), ("fc", ">output")}
    assert chain <= pairs(resnet)


def test_an_edge_carries_the_shape_of_what_is_read(resnet: FlowGraph) -> None:
    shapes = {(edge.source, edge.target): edge.shape for edge in resnet.edges}
    assert shapes["avgpool", "fc"][1:] == (512,)  # flattened on its way
    assert shapes["conv1", "bn1"][1:] == (64, 112, 112)


def test_a_residual_connection_meets_its_block_in_an_addition(resnet: FlowGraph) -> None:
    assert resnet.joins["layer1.0#1"] == "add"
    assert {("maxpool", "layer1.0#1"), ("layer1.0.bn2", "layer1.0#1")} <= pairs(resnet)


def test_a_second_call_of_a_layer_without_parameters_is_a_node_of_its_own(resnet: FlowGraph) -> None:
    assert {("layer1.0.relu", "layer1.0.conv2"), ("layer1.0#1", "layer1.0.relu~2")} <= pairs(resnet)


def test_each_residual_connection_of_a_decoder_layer_is_its_own_join(llama: FlowGraph) -> None:
    layer = "model.layers.0"
    assert llama.joins[f"{layer}#1"] == llama.joins[f"{layer}#2"] == "add"
    assert {(f"{layer}#1", f"{layer}#2"), (f"{layer}.mlp.down_proj", f"{layer}#2")} <= pairs(llama)


def test_the_functions_of_attention_are_one_join(llama: FlowGraph) -> None:
    site = "model.layers.1.self_attn"
    label = next(label for node, label in llama.joins.items() if node.startswith(f"{site}#") and "attention" in label)
    assert label.endswith("scaled_dot_product_attention")
    reading = {target for source, target in pairs(llama) if source == f"{site}.v_proj"}
    assert len(reading) == 1
    assert (reading.pop(), f"{site}.o_proj") in pairs(llama)


def test_a_module_that_uses_its_children_s_weights_without_calling_them_is_a_node() -> None:
    with torch.device("meta"):
        graph = graph_of(models.vit_b_16(image_size=32))
    layer = "encoder.layers.encoder_layer_0"
    assert (f"{layer}.ln_1", f"{layer}.self_attention") in pairs(graph)
    assert not any(node.startswith(f"{layer}.self_attention.") for node in graph.nodes)


def test_a_branch_reads_where_it_is_tapped() -> None:
    model = surgeon.apply(models.resnet18(), surgeon.GradientReversal(at="layer3", domains=2))
    graph = graph_of(model)
    targets = {target for source, target in pairs(graph) if source == "layer3.1.relu~2"}
    assert any(target.startswith("grafts.") for target in targets)
    assert any(target.startswith("layer4.") for target in targets)
    assert ">domain" in " ".join(graph.nodes)


def test_recording_leaves_the_network_as_it_was() -> None:
    model = models.resnet18()
    model.train()
    flow_graph(model, trace(model))
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(not parameter.is_meta for parameter in model.parameters())


def test_joins_contract_without_making_a_circle(llama: FlowGraph, resnet: FlowGraph) -> None:
    for graph in (llama, resnet):
        after: dict[str, set[str]] = {node: set() for node in graph.nodes}
        for source, target in pairs(graph):
            after[source].add(target)
        remaining = dict(after)
        while remaining:
            ends = [node for node, targets in remaining.items() if not targets & remaining.keys()]
            assert ends, f"a circle among {sorted(remaining)[:6]}"
            for node in ends:
                del remaining[node]
