"""The top-down spaces that have a name, against the published networks written out in torch."""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nasaug.supernet import (
    Architecture,
    Limits,
    Network,
    SearchSpace,
    embed,
    load_space,
    load_target,
    macs,
    params,
    space_names,
)

ROOT = Path(__file__).parents[2]
SpaceOf = Callable[[str], SearchSpace]
# Once-for-all's OFAMobileNetV3: base_stage_width, stride_stages, act_stages, se_stages.
WIDTHS = (16, 16, 24, 40, 80, 112, 160, 960, 1280)
STRIDES = (1, 2, 2, 2, 1, 2)
ACTS: tuple[type[nn.Module], ...] = (nn.ReLU,) * 3 + (nn.Hardswish,) * 3
SQUEEZED = (False, False, True, False, True, True)


def _make_divisible(value: int) -> int:
    rounded = max(8, int(value + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * value else rounded


class Squeeze(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = _make_divisible(channels // 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x * self.gate(x)
        return gated


class Residual(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = x + self.block(x)
        return added


def _conv(
    inputs: int, out: int, kernel: int, stride: int, groups: int, act: type[nn.Module] | None
) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out), *([act()] if act else [])]


def _ofa_mobilenet_v3(kernel: int, expand: int, depth: int, classes: int) -> nn.Sequential:
    """OFAMobileNetV3 with one kernel, expand ratio and depth everywhere."""
    width, first = WIDTHS[:2]
    layers = _conv(3, width, 3, 2, 1, nn.Hardswish)
    separable = _conv(width, width, 3, 1, width, ACTS[0]) + _conv(width, first, 1, 1, 1, None)
    layers.append(Residual(nn.Sequential(*separable)))
    width = first
    stages = zip(WIDTHS[2:7], STRIDES[1:], ACTS[1:], SQUEEZED[1:], strict=True)
    for out, stride, act, squeezed in stages:
        for place in range(depth):
            mid = _make_divisible(round(width * expand))
            block = [
                *_conv(width, mid, 1, 1, 1, act),
                *_conv(mid, mid, kernel, 1 if place else stride, mid, act),
                *([Squeeze(mid)] if squeezed else []),
                *_conv(mid, out, 1, 1, 1, None),
            ]
            layers.append(Residual(nn.Sequential(*block)) if place else nn.Sequential(*block))
            width = out
    expanded, mixed = WIDTHS[7:]
    layers += [
        *_conv(width, expanded, 1, 1, 1, nn.Hardswish),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(expanded, mixed, 1, bias=False),
        nn.Hardswish(),
        nn.Flatten(),
        nn.Linear(mixed, classes),
    ]
    return nn.Sequential(*layers)


def _count_macs(net: nn.Module, size: int) -> int:
    """Multiply-accumulates of one image, told by hooks: outputs times weights that each reads."""
    total = 0

    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, Tensor)
        total += output.numel() * weight[0].numel()

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total


ENDS = {"target": (3, 3, 2), "largest": (7, 6, 4)}


def test_ofa_space_has_its_published_size() -> None:
    """In each of five stages 2, 3 or 4 blocks of 9 choices: 9^2 + 9^3 + 9^4 = 7371."""
    assert load_space("mbv3_ofa").count() == 7371**5


@pytest.mark.parametrize("end", ENDS)
def test_ofa_spaces_ends_cost_what_the_published_networks_cost(end: str) -> None:
    space = load_space("mbv3_ofa")
    member: Architecture = getattr(space, end)
    reference = _ofa_mobilenet_v3(*ENDS[end], classes=1000)
    assert macs(member) == _count_macs(reference, 224)
    assert params(member) == sum(p.numel() for p in reference.parameters())
    found = space.source.cheapest if end == "target" else space.source.dearest
    assert found == macs(member)


@pytest.mark.parametrize(("kernel", "expand", "depth"), [(3, 3, 2), (5, 4, 3), (7, 6, 4)])
def test_ofa_members_compute_what_the_published_networks_compute(
    space_of: SpaceOf,
    make_network: Callable[..., Network],
    images: Callable[..., Tensor],
    kernel: int,
    expand: int,
    depth: int,
) -> None:
    """The same weights, layer by layer, in the elastic network and in the one written out."""
    space = space_of("mbv3_ofa")
    values = {name: options[-1] for name, options in space.decisions.items()}
    for name in values:
        block, decision = re.fullmatch(r"stage\d+\.block(\d+)\.(\w+)", name).groups()  # type: ignore[union-attr]
        chosen = {"kernel": kernel, "expand": expand, "present": int(block) <= depth}
        values[name] = chosen[decision]
    member = space.architecture(space.path_of(values))
    net = make_network(space.largest).eval()
    reference = _ofa_mobilenet_v3(kernel, expand, depth, classes=10).eval()
    state = {
        name: tensor
        for name, tensor in reference.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    own = net.export(member).state_dict()
    assert [t.shape for t in own.values()] == [t.shape for t in state.values()]
    reference.load_state_dict(dict(zip(state, own.values(), strict=True)), strict=False)
    x = images(2, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(x, member), reference(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["micro_10k", "micro_40k", "micro_150k"])
def test_micro_targets_are_members_of_the_micro_space(space_of: SpaceOf, name: str) -> None:
    target, space = load_target(name, 10, in_channels=1), space_of("micro_down")
    path = space.path(target)
    assert space.architecture(path) == target
    assert space.macs(path) == macs(target)


@pytest.mark.parametrize("budget", [300_000, 1_200_000])
def test_micro_space_has_many_members_around_the_micro_targets(
    space_of: SpaceOf, budget: int
) -> None:
    space = space_of("micro_down")
    band = space.within(Limits(macs=budget, least_macs=budget * 9 // 10)).count()
    assert band.exact
    assert band.value > 10_000


def test_what_a_named_space_finds_is_a_target_to_be_helped(space_of: SpaceOf) -> None:
    """Top-down, then bottom-up: a member is a target like any other, and lies in the largest."""
    space, rng = space_of("micro_down"), random.Random(0)
    for _ in range(5):
        found = Architecture.from_json(space.sample(rng, 400_000).canonical().to_json())
        for helpers in (
            SearchSpace.around(found),
            SearchSpace.between(found, space.largest.canonical()),
        ):
            assert helpers.target == found
            assert helpers.count() > 1
            assert embed(found, helpers.sample(rng))


def _documented() -> dict[str, str]:
    """The blocks of the documentation's section by language; of two the first."""
    text = (ROOT / "docs" / "networks.md").read_text(encoding="utf-8")
    section = text.partition("## A space of your own")[2].partition("\n## ")[0]
    return dict(reversed(re.findall(r"```(\w*)\n(.*?)```", section, re.DOTALL)))


def test_documented_space_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = _documented()
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(shown["yml"], encoding="utf-8")
    exec(shown["python"], {})
    assert capsys.readouterr().out == shown[""]


def test_named_spaces_say_in_their_files_what_they_hold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command at the head of each file prints the result that stands below it."""
    for name in space_names():
        text = (ROOT / "configs" / "spaces" / f"{name}.yaml").read_text(encoding="utf-8")
        (code,) = re.findall(r'^#   python -c "(.*)"$', text, re.MULTILINE)
        (said,) = re.findall(r"^# Result: ([\w ]+)", text, re.MULTILINE)
        exec(code, {})
        assert capsys.readouterr().out == f"{said}\n"


def test_named_spaces_are_shipped() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["nasaug.configs"]
    assert space_names() == ("mbv2_down", "mbv3_ofa", "micro_down", "micro_small")
    for name in space_names():
        assert any(fnmatch(f"spaces/{name}.yaml", pattern) for pattern in patterns)


@pytest.mark.parametrize(
    ("space", "target"),
    [
        ("mbv2_down", "mbv2_tiny"),
        ("micro_down", "micro_10k"),
        ("micro_down", "micro_40k"),
        ("micro_down", "micro_150k"),
        ("micro_small", "micro_3k"),
        ("micro_small", "micro_10k"),
    ],
)
def test_a_search_down_could_find_the_hand_made_target(space: str, target: str) -> None:
    """Otherwise `nasaug contrast` would compare networks of two families."""
    table = load_space(space, 10)
    own = load_target(target, 10, table.target.resolution, table.target.in_channels)
    assert table.architecture(table.path(own)).canonical() == own
