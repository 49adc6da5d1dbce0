"""Boosted architectures as values, and their networks: hand-written blocks, slopes, slices."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from nasaug.supernet import (
    Architecture,
    Bottleneck,
    Conv,
    GlobalAvgPool,
    InvertedResidual,
    Linear,
    MaxPool,
    Network,
    Row,
    SearchSpace,
    at_slope,
    boost,
    is_boosted,
    load_target,
    sort_channels,
)

MakeNetwork = Callable[..., Network]
Images = Callable[..., Tensor]
MICRO = load_target("micro_10k", 10)


def _of_rows(*rows: Row, size: int = 9) -> Architecture:
    return Architecture((*rows, GlobalAvgPool(), Linear(4)), size, name="small")


def _boosted_rows(arch: Architecture) -> list[int]:
    return [index for index, row in enumerate(arch.rows) if getattr(row, "boost", 0)]


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [1, 2, 3, 4, 5, 6]), (2, [1, 3, 5]), (4, [1, 5]), (9, [1])]
)
def test_the_first_and_every_so_many_rows_are_boosted(every: int, expected: list[int]) -> None:
    """micro_10k: stem, depthwise separable, four inverted residuals, 1x1 head, pool, classifier."""
    assert _boosted_rows(boost(MICRO, every=every)) == expected


def test_only_rows_with_a_pointwise_convolution_are_boosted() -> None:
    rows: tuple[Row, ...] = (
        Conv(3, 2, 8, "relu"),
        MaxPool(),
        Conv(1, 1, 8, "relu", norm=False),
        Conv(1, 1, 8, "relu", norm=False, bias=True),
        Bottleneck(4, 8),
        Conv(1, 2, 8, "none"),
    )
    arch = boost(_of_rows(*rows), ratio=3, every=1)
    assert _boosted_rows(arch) == [3, 4, 5]
    assert {row.boost for row in arch.rows[3:6]} == {3}  # type: ignore[attr-defined]


def test_what_is_boosted_keeps_name_names_and_shape() -> None:
    for every in (1, 2):
        arch = boost(MICRO, every=every)
        assert (arch.name, arch.row_names) == (MICRO.name, MICRO.row_names)
        assert (arch.widths_in, arch.sizes_in) == (MICRO.widths_in, MICRO.sizes_in)
        assert arch != MICRO
        assert is_boosted(arch)
    assert not is_boosted(MICRO)


def test_slope_is_part_of_the_value() -> None:
    arch = boost(MICRO)
    assert at_slope(arch, 0) == arch
    assert len({arch, *(at_slope(arch, slope) for slope in (0.0, 0.25, 1, 1.0))}) == 3
    assert at_slope(at_slope(arch, 0.7), 0) == arch


def test_printing_shows_ratio_and_slope() -> None:
    lines = str(at_slope(boost(MICRO), 0.25)).splitlines()
    assert lines[4].split()[:5] == [
        "stage2.block2", "7", "inverted_residual", "boost=6", "slope=0.25",
    ]  # fmt: skip
    assert lines[3] == str(MICRO).splitlines()[3]


@given(
    ratio=st.integers(1, 64),
    every=st.integers(1, 9),
    slope=st.floats(0, 1),
    name=st.sampled_from(["micro_10k", "mbv3_w035", "resnet50"]),
)
def test_json_round_trip(ratio: int, every: int, slope: float, name: str) -> None:
    arch = at_slope(boost(load_target(name), ratio, every), slope)
    back = Architecture.from_json(arch.to_json())
    assert back == arch
    assert back.rows == arch.rows


def test_json_of_a_plain_row_says_nothing_of_boosting() -> None:
    assert "boost" not in MICRO.to_json()
    assert "slope" not in MICRO.to_json()
    assert "slope" not in boost(MICRO).to_json()


@given(ratio=st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=3))
def test_ratio_and_every_are_checked(ratio: Any) -> None:
    if type(ratio) is int and 1 <= ratio <= 64:
        assert boost(MICRO, ratio).rows[1].boost == ratio  # type: ignore[attr-defined]
        return
    with pytest.raises(ValueError, match="ratio must be an integer from 1 to 64, but got"):
        boost(MICRO, ratio)
    if type(ratio) is not int or ratio < 1:
        with pytest.raises(ValueError, match="every must be an integer from 1 to 65,536, but got"):
            boost(MICRO, every=ratio)


@given(slope=st.floats() | st.integers() | st.booleans() | st.none() | st.text(max_size=3))
def test_slope_is_checked(slope: Any) -> None:
    arch = boost(MICRO)
    if type(slope) in (int, float) and 0 <= slope <= 1:
        assert at_slope(arch, slope).rows[1].slope == slope  # type: ignore[attr-defined]
    else:
        with pytest.raises(ValueError, match="slope must be a number from 0 to 1, but got"):
            at_slope(arch, slope)


def test_wrong_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="micro_10k is boosted already; boost the target"):
        boost(boost(MICRO))
    with pytest.raises(ValueError, match="small has none; choose another target"):
        boost(_of_rows(Conv(3, 1, 8, "relu"), Conv(1, 1, 8, "relu", norm=False)))
    with pytest.raises(ValueError, match="micro_10k must be a boosted architecture"):
        at_slope(MICRO, 0.5)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"boost": 65}, "row 0: boost must be an integer from 1 to 64"),
        ({"boost": True}, "row 0: boost must be an integer from 1 to 64"),
        ({"boost": None}, "row 0: boost must be an integer from 1 to 64"),
        ({"slope": 0.5}, "row 0: boost must be an integer from 1 to 64, but got 0"),
        ({"boost": 2, "slope": "1"}, "row 0: slope must be a number from 0 to 1, but got '1'"),
        ({"boost": 2, "kernel": 3}, "row 0: boost needs a 1x1 convolution with a norm or a bias"),
    ],
)
def test_wrong_rows_of_a_file_are_refused(row: dict[str, Any], words: str) -> None:
    data = _of_rows(Conv(1, 1, 8, "relu")).to_dict()
    data["rows"][0] |= row
    with pytest.raises(ValueError, match=words):
        Architecture.from_dict(data)


def test_boosted_and_plain_networks_do_not_contain_each_other() -> None:
    for arch, largest in ((MICRO, boost(MICRO)), (boost(MICRO, 3), boost(MICRO, 6))):
        with pytest.raises(ValueError, match=r"row 1 \(stage1.block1\): boost is \d, not \d"):
            Network(largest)(torch.zeros(2, 3, 28, 28), arch)


def _conv(net: Network, path: str, x: Tensor, **options: Any) -> Tensor:
    return F.conv2d(x, net.get_parameter(f"{path}.weight"), None, **options)


def _norm(net: Network, path: str, x: Tensor) -> Tensor:
    """Batch statistics in training, running ones in evaluation."""
    norm = net.get_submodule(path)
    mean, var = (norm.get_buffer(f"running_{name}") for name in ("mean", "var"))
    if net.training:
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
    x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    return x * norm.weight[:, None, None] + norm.bias[:, None, None]  # type: ignore[index]


def _inserted(net: Network, path: str, x: Tensor, act: Callable[[Tensor], Tensor]) -> Tensor:
    """The inverted residual in place of the 1x1 convolution, up to the target's own norm."""
    channels = net.get_parameter(f"{path}.mix.weight").shape[0]
    y = act(_norm(net, f"{path}.widen.norm", _conv(net, f"{path}.widen", x)))
    y = act(_norm(net, f"{path}.mix.norm", _conv(net, f"{path}.mix", y, groups=channels)))
    y = _conv(net, f"{path}.project", y)
    return y + x if y.shape == x.shape else y


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("slope", [0.0, 0.37, 1.0])
@pytest.mark.parametrize("mid", [12, 3])
def test_boosted_row_is_the_inverted_residual_written_out(
    make_network: MakeNetwork, images: Images, training: bool, slope: float, mid: int
) -> None:
    """mid = 3 is the width that comes in, so that there is a shortcut inside."""
    arch = boost(_of_rows(InvertedResidual(3, 1, mid, 3, "hardswish", True)), ratio=5, every=1)
    net = make_network(arch, dtype=torch.float64).train(training)
    assert net.blocks[0].expand.widen.weight.shape == (15, 3, 1, 1)

    def act(x: Tensor) -> Tensor:
        return slope * x + (1 - slope) * F.hardswish(x)

    x = images(6, 9).double()
    y = _norm(net, "blocks.0.expand.project.norm", _inserted(net, "blocks.0.expand", x, act))
    y = _conv(net, "blocks.0.depthwise", F.hardswish(y), padding=1, groups=mid)
    y = F.hardswish(_norm(net, "blocks.0.depthwise.norm", y))
    y = _norm(net, "blocks.0.project.norm", _conv(net, "blocks.0.project", y)) + x
    found = net.features(x, at_slope(arch, slope))
    torch.testing.assert_close(found, y.mean((2, 3), keepdim=True), rtol=1e-9, atol=1e-9)


def test_row_without_activation_gets_relu6_inside(
    make_network: MakeNetwork, images: Images
) -> None:
    net = make_network(boost(_of_rows(Conv(1, 1, 3, "none"))), dtype=torch.float64).train()
    x = 9 * images(6, 9).double()
    y = _norm(net, "blocks.0.conv.project.norm", _inserted(net, "blocks.0.conv", x, F.relu6))
    found = net.features(x)
    torch.testing.assert_close(found, y.mean((2, 3), keepdim=True), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("slope", [0.0, 0.37])
def test_gradients_reach_every_weight(
    make_network: MakeNetwork, images: Images, slope: float
) -> None:
    arch = boost(MICRO, every=1)
    net = make_network(arch).train()
    F.cross_entropy(net(images(16, 28), at_slope(arch, slope)), torch.arange(16) % 10).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.count_nonzero() > 0, name


def test_all_slopes_share_the_weights(make_network: MakeNetwork, images: Images) -> None:
    """An export at a slope computes what the network does at that slope, bit for bit."""
    arch, x = boost(MICRO), images(4, 28)
    net = make_network(arch).eval()
    with torch.no_grad():
        found = {}
        for slope in (0.0, 0.01, 0.5, 1.0):
            found[slope] = net(x, at_slope(arch, slope))
            exported = net.export(at_slope(arch, slope))
            assert exported.arch == at_slope(arch, slope)
            assert torch.equal(exported(x), found[slope])
    assert torch.equal(found[0.0], net(x))
    assert len({tuple(logits.flatten().tolist()) for logits in found.values()}) == 4
    torch.testing.assert_close(found[0.01], found[0.0], rtol=0.05, atol=0.05)


def test_weights_are_found_again_by_name(make_network: MakeNetwork, images: Images) -> None:
    """As a weights file does: the architecture as JSON, the tensors by name."""
    net, x = make_network(at_slope(boost(MICRO), 0.25)).eval(), images(2, 28)
    again = Network(Architecture.from_json(net.arch.to_json()), init=None).eval()
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x), net(x))


def test_initialisation_fills_the_parts_inside() -> None:
    net = Network(boost(MICRO), generator=torch.Generator().manual_seed(0))
    expand = net.blocks[3].expand
    for part, bound in ((expand.widen, 12**-0.5), (expand.mix, 1), (expand.project, 72**-0.5)):
        assert 0.9 * bound < part.weight.abs().max() <= bound
        assert (part.norm.weight == 1).all()


def test_sub_networks_of_a_boosted_network_are_slices(
    make_network: MakeNetwork, images: Images
) -> None:
    space = SearchSpace.around(boost(MICRO, every=1), width=(1, 2), expand=(1, 2))
    net, x, rng = make_network(space.largest), images(4, 28), random.Random(0)
    for sub in (space.target, *(space.sample(rng) for _ in range(5))):
        assert is_boosted(sub)
        steep = at_slope(sub, 0.3)
        assert torch.equal(net(x, steep), net.export(steep)(x))


def test_sorting_passes_boosted_rows_over(make_network: MakeNetwork) -> None:
    rows = [InvertedResidual(3, 1, mid, 8, "relu6", False) for mid in (24, 24)]
    net = make_network(boost(_of_rows(*rows), every=2), dtype=torch.float64)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    sort_channels(net)
    moved = {
        name.split(".")[1] for name, t in net.state_dict().items() if (t != before[name]).any()
    }
    assert moved == {"1"}
