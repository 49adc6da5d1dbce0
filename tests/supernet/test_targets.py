"""The named targets against the published tables and torchvision's networks; users' tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nasaug.supernet import (
    Architecture,
    GlobalAvgPool,
    Network,
    SearchSpace,
    load_target,
    macs,
    params,
    published_factors,
    target_names,
)
from nasaug.supernet.architecture import BLOCKS

MICRO = {"micro_3k": 3_000, "micro_10k": 10_000, "micro_40k": 40_000, "micro_150k": 150_000}
TORCHVISION: dict[str, Callable[..., nn.Module]] = {
    "mbv2_w100": torchvision.models.mobilenet_v2,
    "mbv3_w100": torchvision.models.mobilenet_v3_large,
    "mbv3_small_w100": torchvision.models.mobilenet_v3_small,
    "resnet50": torchvision.models.resnet50,
}


@pytest.fixture(params=TORCHVISION, scope="module")
def twin(request: pytest.FixtureRequest) -> tuple[Architecture, nn.Module]:
    """A target and torchvision's network of the same table."""
    return load_target(request.param), TORCHVISION[request.param](weights=None)


def test_rows_are_the_published_ones(published: str, facts: dict[str, Any]) -> None:
    defaults = {"squeeze": None, "boost": 0, "slope": 0.0}
    for row, fact in zip(load_target(published).rows, facts[published]["rows"], strict=True):
        own = {"kind": row.kind, **asdict(row)}
        assert own == {**{k: v for k, v in defaults.items() if k in own}, **fact}


def test_parameters_macs_and_resolution_are_the_published_ones(
    published: str, facts: dict[str, Any]
) -> None:
    fact, target = facts[published], load_target(published)
    assert target.num_classes == fact["num_classes"] == 1000
    assert target.resolution == fact["resolution"]
    assert params(target) == fact["parameters"]
    assert macs(target) == fact["macs"]


def test_parameter_count_is_torchvisions(twin: tuple[Architecture, nn.Module]) -> None:
    target, theirs = twin
    assert params(target) == sum(p.numel() for p in theirs.parameters())


def test_resnet50_has_the_well_known_parameter_count() -> None:
    assert params(load_target("resnet50")) == 25_557_032


def test_logits_are_torchvisions_with_its_weights(
    twin: tuple[Architecture, nn.Module], images: Callable[..., Tensor]
) -> None:
    target, theirs = twin
    _randomise_norms(theirs)
    net = Network(target, init=None).eval()
    _copy_by_order(theirs, net)
    x = images(2, 64)
    with torch.no_grad():
        own, expected = net(x), theirs.eval()(x)
    assert (own - expected).norm() / expected.norm() < 1e-5


def _randomise_norms(net: nn.Module) -> None:
    """Norm weights and statistics as after training, and the epsilon of the papers' tables."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5  # torchvision's MobileNetV3 has 1e-3.
            for tensor in (module.weight, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5, generator=generator)
            for tensor in (module.bias, module.running_mean):
                assert tensor is not None
                nn.init.normal_(tensor, 0, 0.1, generator=generator)


def _copy_by_order(theirs: nn.Module, net: Network) -> None:
    weights = [t for n, t in theirs.state_dict().items() if not n.endswith("num_batches_tracked")]
    for own, value in zip(net.state_dict().values(), weights, strict=True):
        own.copy_(value.reshape(own.shape))  # A 1x1 convolution there may be a linear layer.


def test_micro_targets_have_the_sizes_of_their_names() -> None:
    assert params(load_target("micro_10k", 10)) == 9_994
    for name, size in MICRO.items():
        for in_channels in (1, 3):
            assert abs(params(load_target(name, 10, in_channels=in_channels)) / size - 1) < 0.05


def test_micro_targets_stay_cheap() -> None:
    costs = [macs(load_target(name, 10, in_channels=1)) for name in MICRO]
    assert costs == sorted(costs)
    assert costs[-1] < 3e6


@pytest.mark.parametrize("name", MICRO)
def test_space_around_a_micro_target_reaches_far_beyond_it(name: str) -> None:
    target, factors = load_target(name, 10, in_channels=1), published_factors(name)
    space = SearchSpace.around(target, factors.width, factors.expand, divisor=8)
    assert space.target == target
    assert space.largest.canonical().rows[-1] == target.rows[-1]
    assert 20 < macs(space.largest) / macs(target) < 40


@pytest.mark.parametrize("name", MICRO)
def test_micro_targets_keep_a_map_before_the_pool(name: str) -> None:
    target = load_target(name, 10)
    sizes = dict(zip([type(row) for row in target.rows], target.sizes_in, strict=True))
    assert target.resolution == 28
    assert sizes[GlobalAvgPool] == 4


def test_every_target_takes_classes_resolution_and_channels(target_name: str) -> None:
    target = load_target(target_name, num_classes=7, resolution=64, in_channels=1)
    assert target.name == target_name
    assert (target.num_classes, target.resolution, target.in_channels) == (7, 64, 1)
    assert len({*target.row_names}) == len(target.rows)
    with torch.no_grad():
        assert Network(target).eval()(torch.zeros(2, 1, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    "name", ["mbv2_w050", "mbv3_w075", "mbv3_small_w050", "proxylessnas_w100", "mbv2_w005"]
)
def test_any_width_of_the_scalable_families_is_a_target(name: str) -> None:
    target = load_target(name)
    assert target.resolution == 224
    assert all(row.out % 8 == 0 for row in target.rows if isinstance(row, BLOCKS))


@pytest.mark.parametrize("name", ["mbv2_w004", "mbv3_w401"])
def test_absurd_width_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="from 005 to 400"):
        load_target(name)


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [("mbv2-tiny", "mbv2_tiny"), ("resnet", "resnet50"), ("mcu_net", "mcunet")],
)
def test_unknown_name_offers_the_nearest(wrong: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=f"unknown target '{wrong}': did you mean '{nearest}'"):
        load_target(wrong)


def test_hopeless_name_lists_all_targets() -> None:
    with pytest.raises(ValueError) as caught:
        load_target("?")
    assert all(name in str(caught.value) for name in target_names())


@pytest.mark.parametrize("classes", [1, 0, -3, 2.5])
def test_fewer_than_two_classes_is_an_error(classes: int) -> None:
    with pytest.raises(ValueError, match=f"num_classes .* at least 2, but got {classes}"):
        load_target("mbv2_tiny", classes)


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("mbv2_tiny", (1.0, 1.8, 2.6)),
        ("mbv2_w035", (1.0, 1.8, 2.6)),
        ("proxylessnas_w035", (1.0, 1.8, 2.6)),
        ("mcunet", (1.0, 1.6, 2.2)),
        ("mbv3_w035", (1.0, 2.0, 3.0)),
        ("micro_3k", (1.0, 1.8, 2.6)),
        ("micro_10k", (1.0, 1.8, 2.6)),
        ("micro_150k", (1.0, 1.8, 2.6)),
    ],
)
def test_factors_are_the_authors(name: str, widths: tuple[float, ...]) -> None:
    factors = published_factors(name)
    assert factors.width == widths
    assert factors.expand == (1.0, 1.6, 2.2, 2.8)


TABLE = """
resolution: 32
rows:
  - {kind: conv, kernel: 3, stride: 2, out: 8, act: relu6}
  - {kind: inverted_residual, kernel: 5, stride: 1, mid: 24, out: 8, act: relu6, skip: true}
  - {kind: global_avg_pool}
  - {kind: linear, out: 10}
"""


@pytest.fixture
def table(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_users_table_is_a_target(table: Callable[[str], Path]) -> None:
    target = load_target(table(TABLE), num_classes=5)
    assert (target.name, target.resolution, target.num_classes) == ("mine", 32, 5)
    assert [row.kind for row in target.rows] == [r["kind"] for r in yaml.safe_load(TABLE)["rows"]]
    # 216 + 16, 192 + 48, 600 + 48, 192 + 16 and 8 x 5 + 5 by hand.
    assert params(target) == 1373


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        ("act: relu6}", "act: relu6, dilation: 2}", "row 0: conv has no key 'dilation'"),
        ("kernel: 3", "kernel: 4", r"row 0 \(stem\): kernel must be odd, but got 4"),
        ("stride: 2", "stride: 3", r"row 0 \(stem\): stride must be 1 or 2, but got 3"),
        ("out: 8, act: relu6, skip", "out: 16, act: relu6, skip", r"row 1 \(stage1.block1\): skip"),
        ("stride: 1", "stride: 2", r"row 1 \(stage1.block1\): skip must keep the shape"),
        ("  - {kind: linear, out: 10}\n", "", "must .* end with the one linear row"),
        ("  - {kind: global_avg_pool}\n", "", "must hold one global_avg_pool"),
        ("inverted_residual", "inverted", "row 1: row kind must be one of .* but got 'inverted'"),
        ("mid: 24, ", "", "row 1: inverted_residual needs mid"),
        ("mid: 24", "mid: 2.5", "row 1: inverted_residual: mid must be an integer .* got 2.5"),
        ("out: 8", "out: 0", "row 0: conv: out must be an integer from 1 .* got 0"),
        ("skip: true", "skip: 1", "row 1: inverted_residual: skip must be true or false"),
        ("act: relu6}", "act: gelu}", "row 0: conv: act must be one of .* but got 'gelu'"),
        ("resolution: 32", "resolution: big", "resolution must be an integer"),
        ("resolution: 32", "", "needs a resolution"),
        ("resolution: 32", "resolution: 32\ncolour: red", "no key 'colour'"),
        ("resolution: 32", "resolution: 32\nin_channels: 2", "in_channels must be 1 .* or 3"),
        ("rows:", "rows: [", "not a target's table"),
    ],
)
def test_wrong_table_is_an_error_that_says_where(
    table: Callable[[str], Path], good: str, bad: str, words: str
) -> None:
    assert good in TABLE
    path = table(TABLE.replace(good, bad, 1))
    with pytest.raises(ValueError, match=words) as caught:
        load_target(path)
    assert "mine.yaml" in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=200))
@example(text="- 1")
@example(text="rows: 3")
@example(text="{[1]: 2}")
def test_any_text_is_a_target_or_a_value_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("tables") / "any.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"any\.yaml is not a target's table"):
        load_target(path)


def test_missing_table_is_file_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_target(tmp_path / "none.yaml")


def _found(path: Path, **changed: Any) -> Path:
    """A search's best.json, as one down writes it."""
    arch = load_target("micro_10k", 5, 32, 1)
    facts = {"direction": "down", "architecture": arch.to_dict(), **changed}
    path.write_text(json.dumps(facts))
    return path


def test_what_a_search_down_found_is_a_target(tmp_path: Path) -> None:
    path = _found(tmp_path / "best.json")
    for place in (path, tmp_path, str(tmp_path)):
        arch = load_target(place, 10)
        assert arch == load_target("micro_10k", 10, 32, 1)
        assert load_target(place, 10, 48, 3) == load_target("micro_10k", 10, 48, 3)


def test_a_folder_does_not_hide_a_named_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mbv2_tiny").mkdir()
    assert load_target("mbv2_tiny").name == "mbv2_tiny"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"direction": "up", "target": "mbv2_w035"}, "to train mbv2_w035 in, not a target"),
        ({"direction": None}, "a network to train a target in, not a target; .* --largest"),
        ({"architecture": None}, "is not a search's result: it has no architecture"),
        ({"architecture": {"rows": [{"kind": "covn"}]}}, "is not a search's result: "),
    ],
)
def test_other_results_are_no_targets(changed: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        load_target(_found(tmp_path / "best.json", **changed))


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\x00"])
def test_a_damaged_result_is_named(text: str, tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"best\.json is not a search's result"):
        load_target(path)


def test_a_search_that_is_not_finished_has_no_target(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "best.json"):
        with pytest.raises(ValueError, match=r"no search's result: there is no best\.json"):
            load_target(place)
    with pytest.raises(FileNotFoundError):
        load_target(tmp_path / "gone" / "best.json")
