"""Frozen norms stay as they were trained under torch's own tools, as ``torchvision.ops.FrozenBatchNorm2d`` does."""

from __future__ import annotations

import copy
import pickle
from functools import cache

import pytest
import torch
import torch.distributed as dist
import transformers as tf
from families import CLASSES, build, example
from torch import nn
from torch.ao.quantization import fuse_modules
from torch.ao.quantization.quantize_fx import fuse_fx
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.optim.swa_utils import AveragedModel, update_bn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names
from torchvision.ops import FrozenBatchNorm2d
from transformers.models.rt_detr.modeling_rt_detr import RTDetrFrozenBatchNorm2d

import surgeon
from surgeon.nn.frozen import Frozen, freeze_norm, thaw_norm
from surgeon.nn.mixing import blank
from surgeon.operations import Freeze, Multitask, Reinit
from surgeon.training.domains import SeparateNorms

NETWORKS = ["resnet", "mobilenet", "densenet"]
SHAPES = {
    nn.BatchNorm1d: (4, 3), nn.BatchNorm2d: (4, 3, 2, 2), nn.BatchNorm3d: (4, 3, 2, 2, 2), nn.SyncBatchNorm: (4, 3, 5),
    nn.InstanceNorm1d: (4, 3, 5), nn.InstanceNorm2d: (4, 3, 5, 5), FrozenBatchNorm2d: (4, 3, 2, 2),
    RTDetrFrozenBatchNorm2d: (4, 3, 2, 2),
}  # fmt: skip


@cache
def _frozen(name, **what):
    model = build(name).train()
    model(*example(name)[0])  # statistics that are not those of a new layer
    return surgeon.apply(model.eval(), [Freeze(**what or {"all_but": "head"})])


@pytest.fixture(params=NETWORKS)
def frozen(request):
    """A torchvision network, frozen up to its head, and an input."""
    return copy.deepcopy(_frozen(request.param)), example(request.param)[0][0]


def trained_norm(cls):
    """A norm layer whose values are not those of a new one."""
    torch.manual_seed(0)
    tracked = issubclass(cls, nn.modules.batchnorm._NormBase)
    norm = cls(3, affine=True, track_running_stats=True) if tracked else cls(3)
    for name, tensor in norm.state_dict().items():
        if name != "num_batches_tracked":
            tensor.copy_(torch.rand(3) + 0.5)
    return norm.eval()


def buffers(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def changed(model, before):
    return [name for name, buffer in model.named_buffers() if not torch.equal(buffer, before[name])]


# ---- torch's tools on networks


def test_update_bn_leaves_the_statistics_as_they_were(frozen):
    model, images = frozen
    averaged = AveragedModel(model)
    before = buffers(averaged)
    update_bn([images], averaged)
    assert changed(averaged, before) == []


def test_update_bn_still_estimates_what_is_not_frozen():
    model = copy.deepcopy(_frozen("resnet", up_to="layer2"))
    before = buffers(model)
    update_bn(example("resnet")[0], model)
    assert "layer3.0.bn1.running_mean" in changed(model, before)
    assert not [name for name in changed(model, before) if name.startswith(("bn1", "layer1", "layer2"))]


def test_convert_sync_batchnorm_leaves_them_frozen(frozen):
    model, images = frozen
    before = buffers(model)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model).train()
    converted(images)
    assert not [m for m in converted.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert changed(converted, before) == []


def test_convert_sync_batchnorm_converts_what_is_not_frozen():
    model = copy.deepcopy(_frozen("resnet", up_to="layer2"))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert type(converted.layer3[0].bn1) is nn.SyncBatchNorm
    assert isinstance(converted.layer2[0].bn1, Frozen)


def test_symbolic_trace_gives_a_network_with_the_same_outputs_names_and_frozen_norms(frozen):
    model, images = frozen
    traced = torch.fx.symbolic_trace(model)
    assert torch.equal(traced(images), model(images))
    assert traced.state_dict().keys() == model.state_dict().keys()
    before = buffers(traced)
    pickle.loads(pickle.dumps(traced)).train()(images)
    traced.train()(images)
    assert changed(traced, before) == []


def test_nodes_are_called_as_those_of_a_network_that_is_not_frozen(frozen):
    model, _ = frozen
    thawed = copy.deepcopy(model)
    for module in thawed.modules():
        thaw_norm(module)
    assert get_graph_node_names(model) == get_graph_node_names(thawed)


@pytest.mark.parametrize(
    ("name", "site"),
    # torchvision takes mobilenet's convolution, norm and activation for one node
    [("resnet", "layer1.0.bn2"), ("densenet", "features.norm5"), ("mobilenet", "features.0")],
)
def test_create_feature_extractor_takes_the_outputs_of_frozen_norms(name, site):
    model, images = copy.deepcopy(_frozen(name)), example(name)[0][0]
    read = {}
    model.get_submodule(site).register_forward_hook(lambda module, args, output: read.update(features=output.clone()))
    model.eval()(images)
    extractor = create_feature_extractor(model, {site: "features"})
    before = buffers(extractor)
    for training in (False, True):
        assert torch.equal(extractor.train(training)(images)["features"], read["features"])
    assert changed(extractor, before) == []


def test_convolutions_fuse_with_frozen_norms():
    model, images = _frozen("resnet").eval(), example("resnet")[0][0]
    fused = fuse_conv_bn_eval(model.conv1, model.bn1)
    torch.testing.assert_close(fused(images), model.bn1(model.conv1(images)))
    assert not fused.weight.requires_grad


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_eager_fusing_refuses_frozen_norms_by_name_and_takes_thawed_ones():
    model, images = copy.deepcopy(_frozen("resnet")).eval(), example("resnet")[0][0]
    with pytest.raises((NotImplementedError, AssertionError), match="FrozenBatchNorm2d"):
        fuse_modules(model, ["conv1", "bn1", "relu"])
    expected = model(images)
    assert type(thaw_norm(model.bn1)) is nn.BatchNorm2d
    fused = fuse_modules(model, ["conv1", "bn1", "relu"])
    assert isinstance(fused.bn1, nn.Identity)
    torch.testing.assert_close(fused(images), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_graph_fusing_leaves_frozen_norms_alone(frozen):
    model, images = frozen
    torch.testing.assert_close(fuse_fx(model.eval())(images), model(images))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_keeps_the_outputs(frozen):
    model, images = frozen
    assert torch.equal(torch.jit.script(model.eval())(images), model(images))


@pytest.mark.parametrize("strict", [False, True])
def test_export_keeps_the_outputs(strict):
    model, images = _frozen("resnet").eval(), example("resnet")[0][0]
    exported = torch.export.export(model, (images,), strict=strict).module()
    torch.testing.assert_close(exported(images), model(images))


def test_distributed_training_keeps_the_statistics(tmp_path):
    model, images = copy.deepcopy(_frozen("resnet")), example("resnet")[0][0]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(model)).train()
        before = buffers(parallel)
        parallel(images).sum().backward()
    finally:
        dist.destroy_process_group()
    assert changed(parallel, before) == []
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {"fc.weight", "fc.bias"}


def test_the_norms_of_transformers_networks_are_left_alone_too():
    config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=CLASSES)
    model = surgeon.apply(tf.ResNetForImageClassification(config).eval(), [Freeze(all_but="head")])
    before = buffers(model)
    update_bn([torch.rand(2, 3, 32, 32)], nn.SyncBatchNorm.convert_sync_batchnorm(model))
    assert changed(model, before) == []


# ---- single layers


@pytest.mark.parametrize("cls", SHAPES)
def test_a_frozen_norm_gives_what_it_gave_in_eval_mode_to_the_bit(cls):
    norm, x = trained_norm(cls), torch.rand(SHAPES[cls])
    expected, state = norm(x), norm.state_dict()
    around = nn.Sequential(freeze_norm(norm)).train()
    for network in (around, copy.deepcopy(around), pickle.loads(pickle.dumps(around))):
        assert torch.equal(network(x), expected)
        assert not network[0].training
    assert torch.equal(torch.compile(around, fullgraph=True, backend="eager")(x), expected)
    assert norm.state_dict().keys() == state.keys()
    assert norm.state_dict()._metadata == state._metadata


@pytest.mark.parametrize("cls", SHAPES)
def test_a_frozen_norm_of_any_class_is_traced(cls):
    norm, x = trained_norm(cls), torch.rand(SHAPES[cls])
    expected = norm(x)
    traced = torch.fx.symbolic_trace(nn.Sequential(freeze_norm(norm)))
    assert torch.equal(traced.train()(x), expected)


@pytest.mark.parametrize(
    "module", [nn.Dropout(0.5), nn.LayerNorm(3), nn.GroupNorm(3, 3)], ids=lambda m: type(m).__name__
)
def test_any_layer_can_be_kept_in_eval_mode(module):
    x = torch.rand(2, 3)
    expected = module.eval()(x)
    around = nn.Sequential(freeze_norm(copy.deepcopy(module))).train()
    assert torch.equal(around(x), expected)
    assert torch.equal(torch.fx.symbolic_trace(around).train()(x), expected)


@pytest.mark.parametrize("cls", [nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d])
def test_an_input_of_other_dimensions_is_still_refused(cls):
    with pytest.raises(ValueError, match="expected"):
        freeze_norm(cls(3))(torch.rand(3, 3, 3, 3, 3, 3))


def test_setting_the_mode_by_hand_does_not_make_it_follow_the_data():
    norm = freeze_norm(trained_norm(nn.BatchNorm2d))
    before = buffers(norm)
    norm.training = True
    norm(torch.rand(4, 3, 2, 2))
    assert changed(norm, before) == []


def test_weights_that_train_again_leave_the_statistics_fixed():
    norm = freeze_norm(trained_norm(nn.BatchNorm2d).requires_grad_(False))
    before, x = buffers(norm), torch.rand(4, 3, 2, 2)
    norm.requires_grad_(True).train()(x).sum().backward()
    assert norm.weight.grad is not None
    assert changed(norm, before) == []


def test_a_batchnorm_that_keeps_no_statistics_goes_by_the_batch_as_in_eval_mode():
    norm, x = nn.BatchNorm1d(3, track_running_stats=False).eval(), torch.rand(4, 3)
    expected = norm(x)
    assert torch.equal(freeze_norm(norm)(x), expected)


def test_what_earlier_versions_pickled_is_frozen_in_the_same_way():
    norm, x = trained_norm(nn.BatchNorm2d), torch.rand(4, 3, 2, 2)

    class Pickled:
        def __reduce__(self):
            return blank, (Frozen, nn.BatchNorm2d), norm.__dict__

    again = pickle.loads(pickle.dumps(Pickled()))
    assert torch.equal(again.train()(x), norm(x))
    assert type(again) is type(freeze_norm(copy.deepcopy(norm)))


class Activated(nn.BatchNorm2d):
    """A BatchNorm that computes something else besides."""

    def forward(self, input):
        return super().forward(input).relu()


class Gentle(nn.BatchNorm2d):
    """A BatchNorm with a constructor of its own."""

    def __init__(self, features):
        super().__init__(features, eps=1e-3, momentum=0.01)


def test_a_norm_with_a_forward_of_its_own_keeps_it_and_its_statistics():
    norm = trained_norm(Activated)
    around = nn.Sequential(freeze_norm(norm))
    before, x = buffers(around), torch.randn(4, 3, 2, 2)
    update_bn([x], around)
    assert changed(around, before) == []
    assert isinstance(norm, Activated)
    assert bool((around(x) >= 0).all())


def test_a_norm_with_a_constructor_of_its_own_is_not_converted():
    norm = Gentle(3)
    assert nn.SyncBatchNorm.convert_sync_batchnorm(freeze_norm(norm)) is norm
    assert (norm.eps, norm.momentum) == (1e-3, 0.01)


# ---- what surgeon does with them


def test_thawing_gives_the_class_back_and_nothing_to_what_is_not_frozen():
    norm, plain = freeze_norm(trained_norm(nn.BatchNorm2d)), nn.Linear(2, 2)
    before = buffers(norm)
    assert type(thaw_norm(norm)) is nn.BatchNorm2d
    norm.train()(torch.rand(4, 3, 2, 2))
    assert "running_mean" in changed(norm, before)
    assert thaw_norm(plain) is plain


def test_a_selector_by_type_names_frozen_norms_which_can_be_drawn_again():
    model = surgeon.apply(copy.deepcopy(_frozen("resnet")), [Reinit(sites="type:BatchNorm2d")])
    norms = [module for module in model.modules() if isinstance(module, Frozen)]
    assert len(norms) == 20
    for norm in norms:
        assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))
        assert torch.equal(norm.running_var, torch.ones_like(norm.running_var))
        assert torch.equal(norm.weight, torch.ones_like(norm.weight))


def test_resetting_parameters_resets_the_statistics_as_well():
    norm = freeze_norm(trained_norm(nn.BatchNorm2d))
    norm.reset_parameters()
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in nn.BatchNorm2d(3).state_dict().items())
    assert isinstance(norm, Frozen)


def test_domains_need_no_separating_where_all_norms_are_frozen():
    model, images = copy.deepcopy(_frozen("resnet")).train(), example("resnet")[0][0]
    norms = SeparateNorms(model)
    with norms.installed():
        norms.domain = torch.tensor([0, 1])
        assert torch.equal(model(images), _frozen("resnet").eval()(images))


def test_a_head_on_a_frozen_norm_pools_the_same_positions():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8), nn.Flatten(), nn.Linear(64, 2)).eval()
    x = torch.rand(2, 1, 10)  # the norm gives eight channels at eight positions
    head = Multitask(tasks={"age": {"kind": "regression", "classes": 1, "at": "1"}})
    expected = surgeon.apply(model, [head], inputs=[2, 1, 10])(x)["age"]
    assert torch.equal(surgeon.apply(model, [Freeze(sites="1"), head], inputs=[2, 1, 10])(x)["age"], expected)
