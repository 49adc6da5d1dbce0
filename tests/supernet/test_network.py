"""The one network class: slices, exports, gradients, initialisation."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from nasaug.supernet import (
    Architecture,
    Conv,
    ElasticNorm,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    Network,
    SearchSpace,
    Skip,
    load_target,
    macs,
)

MakeNetwork = Callable[..., Network]
Images = Callable[..., Tensor]


@pytest.fixture(scope="module")
def elastic(
    space_name: str, space_of: Callable[[str], SearchSpace], make_network: MakeNetwork
) -> tuple[SearchSpace, Network]:
    """A target's or a table's space and the network of its largest member."""
    space = space_of(space_name)
    if space_name == "resnet50":  # Its default space goes up to 166 G MACs.
        space = SearchSpace.around(load_target(space_name, 10), width=(1,), expand=(1, 1.3))
    return space, make_network(space.largest)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [False, True])
def test_export_is_equal_bit_for_bit(
    elastic: tuple[SearchSpace, Network],
    images: Images,
    training: bool,
    memory_format: torch.memory_format,
) -> None:
    space, net = elastic
    x = images(2, 48, channels=space.target.in_channels).contiguous(memory_format=memory_format)
    rng = random.Random(1)
    net.train(training)
    for sub in (space.target, *(space.sample(rng) for _ in range(3))):
        exported = net.export(sub)
        assert exported.training == training
        assert exported.arch == sub
        assert not any(isinstance(row, Skip) for row in exported.arch.rows)
        with torch.no_grad():
            assert torch.equal(net(x, sub), exported(x))


def test_export_keeps_every_bit_of_a_double_network(
    make_network: MakeNetwork, micro_space: SearchSpace
) -> None:
    net = make_network(micro_space.largest, dtype=torch.float64)
    with torch.no_grad():
        for tensor in net.parameters():
            tensor.mul_(1 + 1e-12)
    own, copied = net.state_dict(), net.export().state_dict()
    assert all(torch.equal(own[name], copied[name]) for name in own)


def test_export_owns_its_memory(make_network: MakeNetwork, micro_space: SearchSpace) -> None:
    net = make_network(micro_space.largest)
    exported = net.export()
    before = {name: tensor.clone() for name, tensor in exported.state_dict().items()}
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(before[name], t) for name, t in exported.state_dict().items())


def test_whole_network_needs_no_sub_network(
    make_network: MakeNetwork, micro_space: SearchSpace, images: Images
) -> None:
    net, x = make_network(micro_space.largest).eval(), images(2, 28)
    with torch.no_grad():
        assert torch.equal(net(x), net(x, micro_space.largest))
        assert torch.equal(net(x), net(x, micro_space.largest.canonical()))


def test_absent_rows_may_be_left_out(
    make_network: MakeNetwork, micro_space: SearchSpace, images: Images
) -> None:
    net, x, sub = make_network(micro_space.largest).eval(), images(2, 28), micro_space.target
    assert len(sub.canonical().rows) < len(sub.rows)
    with torch.no_grad():
        assert torch.equal(net(x, sub), net(x, sub.canonical()))


def test_features_are_what_the_classifier_reads(
    make_network: MakeNetwork, micro_space: SearchSpace, images: Images
) -> None:
    net, x, sub = make_network(micro_space.largest).eval(), images(2, 28), micro_space.target
    classifier = net.export(sub).blocks[-1].linear
    with torch.no_grad():
        features = net.features(x, sub)
        assert features.shape == (2, 64, 1, 1)
        expected = F.linear(features.flatten(1), classifier.weight, classifier.bias)
        assert torch.equal(net(x, sub), expected)


def test_sub_network_that_is_not_inside_is_a_value_error(
    make_network: MakeNetwork, micro_space: SearchSpace, images: Images
) -> None:
    net = make_network(micro_space.target.canonical())
    wider = micro_space.largest.canonical()
    with pytest.raises(ValueError, match=r"does not contain micro_10k-largest: row 0 \(stem\)"):
        net(images(2, 28), wider)
    with pytest.raises(ValueError, match="does not contain"):
        net.export(wider)


def _slice_of(whole: Tensor, part: torch.Size) -> Tensor:
    """True where a weight of shape `part` lies in `whole`: first channels, centre of the kernel."""
    mask = torch.zeros_like(whole, dtype=torch.bool)
    crop = [slice(0, size) for size in part[:2]]
    for own, size in zip(whole.shape[2:], part[2:], strict=True):
        start = (own - size) // 2
        crop.append(slice(start, start + size))
    mask[tuple(crop)] = True
    return mask


def test_gradients_are_zero_outside_the_slice(
    make_network: MakeNetwork, micro_space: SearchSpace, images: Images
) -> None:
    net = make_network(micro_space.largest)
    sub = micro_space.target
    F.cross_entropy(net(images(8, 28), sub), torch.arange(8)).backward()
    parts = iter(net.export(sub).blocks)
    for block, row in zip(net.blocks, sub.rows, strict=True):
        part = {} if isinstance(row, Skip) else dict(next(parts).named_parameters())
        for name, parameter in block.named_parameters():
            if name not in part:
                assert parameter.grad is None
                continue
            assert parameter.grad is not None
            inside = _slice_of(parameter, part[name].shape)
            assert parameter.grad[inside].count_nonzero() > 0
            assert parameter.grad[~inside].count_nonzero() == 0


def test_gradients_of_slice_and_export_are_equal(
    make_network: MakeNetwork, micro_space: SearchSpace, images: Images
) -> None:
    net = make_network(micro_space.largest)
    x, y, sub = images(8, 28), torch.arange(8), micro_space.sample(random.Random(3))
    exported = net.export(sub)
    F.cross_entropy(net(x, sub), y).backward()
    F.cross_entropy(exported(x), y).backward()
    present = [b for b, r in zip(net.blocks, sub.rows, strict=True) if not isinstance(r, Skip)]
    for block, own in zip(present, exported.blocks, strict=True):
        wide = dict(block.named_parameters())
        for name, parameter in own.named_parameters():
            gradient, whole = parameter.grad, wide[name].grad
            assert gradient is not None
            assert whole is not None
            inside = whole[_slice_of(whole, gradient.shape)].reshape(gradient.shape)
            torch.testing.assert_close(inside, gradient, rtol=1e-4, atol=1e-6)


def test_training_leaves_running_statistics_alone(
    make_network: MakeNetwork, micro_space: SearchSpace, images: Images
) -> None:
    net = make_network(micro_space.largest).train()
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for sub in (None, micro_space.target):
        net(images(8, 28), sub).logsumexp(1).mean().backward()
        optimizer.step()
    assert len(before) == 2 * sum(isinstance(m, ElasticNorm) for m in net.modules())
    assert all(torch.equal(before[name], buffer) for name, buffer in net.named_buffers())


def test_training_normalises_by_the_batch_and_evaluation_by_running_statistics(
    images: Images,
) -> None:
    norm, x = ElasticNorm(8), images(4, 5, channels=6)
    torch.nn.init.uniform_(norm.weight)
    torch.nn.init.uniform_(norm.bias)
    norm.running_mean.uniform_()
    norm.running_var.uniform_(0.5, 1)
    for training in (True, False):
        reference = torch.nn.BatchNorm2d(6)
        state = {name: tensor[:6] for name, tensor in norm.state_dict().items()}
        reference.load_state_dict(state, strict=False)
        expected = reference.train(training)(x)
        torch.testing.assert_close(norm.train(training)(x, 6), expected)


def _one_convolution(kernel: int) -> Architecture:
    rows = (Conv(kernel, 1, 4, "none", norm=False), GlobalAvgPool(), Linear(2))
    return Architecture(rows, 9)


@pytest.mark.parametrize(("large", "small"), [(5, 3), (7, 3), (7, 1), (3, 1)])
def test_smaller_kernel_is_the_centre_crop(large: int, small: int, images: Images) -> None:
    net, start = Network(_one_convolution(large)), (large - small) // 2
    crop = net.blocks[0].conv.weight[:, :, start : start + small, start : start + small]
    x = images(2, 9)
    expected = F.conv2d(x, crop, padding=small // 2).mean((2, 3), keepdim=True)
    torch.testing.assert_close(net.features(x, _one_convolution(small)), expected)


def test_kernel_with_a_zero_border_computes_what_its_crop_computes(images: Images) -> None:
    """So that growing a kernel by zeros changes no output, border pixels included."""
    net, x = Network(_one_convolution(5)), images(2, 9)
    with torch.no_grad():
        net.blocks[0].conv.weight[:, :, [0, 4], :] = 0
        net.blocks[0].conv.weight[:, :, :, [0, 4]] = 0
    torch.testing.assert_close(net(x), net(x, _one_convolution(3)))


def test_weights_outside_the_slice_cannot_reach_the_output(
    make_network: MakeNetwork, micro_space: SearchSpace, images: Images
) -> None:
    """Every weight beyond the target's slice is NaN, and the target does not notice."""
    net, x, sub = make_network(micro_space.largest).eval(), images(2, 28), micro_space.target
    with torch.no_grad():
        expected = net(x, sub)
        parts = iter(net.export(sub).blocks)
        for block, row in zip(net.blocks, sub.rows, strict=True):
            part = {} if isinstance(row, Skip) else next(parts).state_dict()
            for name, tensor in block.state_dict().items():
                if name in part:
                    tensor[~_slice_of(tensor, part[name].shape)] = torch.nan
                else:
                    tensor.fill_(torch.nan)
        assert torch.equal(net(x, sub), expected)


def test_grey_images_are_read_by_one_channel(images: Images) -> None:
    target = load_target("micro_10k", 10, in_channels=1)
    net = Network(target)
    assert net.blocks[0].conv.weight.shape[1] == 1
    assert net(images(2, 28, channels=1)).shape == (2, 10)


def test_squeeze_gates_by_the_mean_of_the_map(images: Images) -> None:
    """The block of MobileNetV3 written out: expand, depthwise, squeeze-and-excitation, project."""
    rows = (InvertedResidual(3, 1, 12, 3, "relu", True, 8), GlobalAvgPool(), Linear(2))
    net, x = Network(Architecture(rows, 9)).eval(), images(2, 9)
    w = {name: tensor.detach() for name, tensor in net.blocks[0].named_parameters()}
    scale = (1 + ElasticNorm.EPS) ** -0.5  # The norms' running statistics are 0 and 1.
    y = F.relu(F.conv2d(x, w["expand.weight"]) * scale)
    y = F.relu(F.conv2d(y, w["depthwise.weight"], padding=1, groups=12) * scale)
    gate = F.conv2d(y.mean((2, 3), keepdim=True), w["squeeze.reduce.weight"]).relu()
    gate = F.conv2d(gate, w["squeeze.restore.weight"])
    y = F.conv2d(y * F.relu6(gate + 3) / 6, w["project.weight"]) * scale + x
    torch.testing.assert_close(net.features(x), y.mean((2, 3), keepdim=True))


def test_any_image_size_runs_though_costs_are_quoted_at_one(images: Images) -> None:
    target = load_target("micro_10k", 10)
    net = Network(target).eval()
    assert net(images(2, 45)).shape == (2, 10)
    assert macs(net.arch) == macs(target) != macs(replace(target, resolution=45))
