"""MACs at equal mAP: against straight lines and integrals by other means, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from scipy.integrate import quad

from nasaug.detection import DetectorCurve, EqualMap, macs_at_equal_map

RESOLUTIONS = (96, 128, 160, 192)
MACS = (20_000_000, 35_000_000, 55_000_000, 80_000_000)
BASE = (0.30, 0.38, 0.43, 0.46)


def curve(
    name: str, means: Any, spread: float = 0.0, seeds: Any = (0, 1, 2), macs: Any = MACS
) -> Any:
    """With these means over the seeds, which lie `spread` apart."""
    offsets = (np.arange(len(seeds)) - (len(seeds) - 1) / 2) * spread
    maps = tuple(tuple(float(mean + offset) for offset in offsets) for mean in means)
    return DetectorCurve(
        name, RESOLUTIONS[: len(maps)], tuple(macs)[: len(maps)], tuple(seeds), maps
    )


def cheaper(factor: float) -> Any:
    """The baseline's mAP for `factor` times its MACs."""
    return curve("netaug", BASE, macs=[round(factor * each) for each in MACS])


@pytest.mark.parametrize("factor", [0.5, 0.59, 0.62, 1.0, 1.7])
def test_a_curve_moved_sideways(factor: float) -> None:
    found = macs_at_equal_map(curve("baseline", BASE), cheaper(factor))
    expected = 100 * (1 - factor)
    assert found.mean.value == pytest.approx(expected, abs=1e-4)
    assert found.overlap == pytest.approx((0.30, 0.46))
    assert [saving.resolution for saving in found.savings] == list(RESOLUTIONS)
    assert [s.fewer.value for s in found.savings] == pytest.approx([expected] * 4, abs=1e-4)
    assert [saving.baseline_macs for saving in found.savings] == list(MACS)
    assert [saving.level for saving in found.savings] == pytest.approx(list(BASE))


def test_lines_over_log_macs_by_numpy_and_scipy() -> None:
    better = (0.33, 0.40, 0.46, 0.48)
    found = macs_at_equal_map(curve("baseline", BASE), curve("netaug", better))

    def log_ratio(level: float) -> float:
        one, other = (np.interp(level, means, np.log(MACS)) for means in (BASE, better))
        return float(other - one)

    savings = {saving.resolution: saving for saving in found.savings}
    assert list(savings) == [128, 160, 192]
    for resolution, level in zip(RESOLUTIONS[1:], BASE[1:], strict=True):
        expected = 100 * (1 - np.exp(log_ratio(level)))
        assert savings[resolution].fewer.value == pytest.approx(expected)
        macs = np.exp(np.interp(level, better, np.log(MACS)))
        assert savings[resolution].macs == pytest.approx(macs, abs=0.5)
        assert curve("netaug", better).macs_at(level) == pytest.approx(macs)
    # netaug at 160 pixels is as good as the baseline at 192.
    assert found.largest is savings[192]
    assert savings[192].macs == MACS[2]
    low, high = found.overlap
    assert (low, high) == pytest.approx((0.33, 0.46))
    area = quad(log_ratio, low, high, points=[0.38, 0.40, 0.43], epsabs=1e-12)[0]
    assert found.mean.value == pytest.approx(100 * (1 - np.exp(area / (high - low))))


means = st.lists(st.integers(50, 900), min_size=2, max_size=4).map(
    lambda values: tuple(value / 1000 for value in values)
)


@given_settings(max_examples=80, deadline=None)
@given(means, means)
def test_curves_that_fall_by_brute_force(first: Any, second: Any) -> None:
    """The fewest MACs that reach a level, found by walking along the lines in small steps."""
    baseline, other = curve("baseline", first, seeds=(0,)), curve("netaug", second, seeds=(0,))
    low, high = max(first[0], second[0]), min(max(first), max(second))
    if low >= high:
        with pytest.raises(ValueError, match="equal mAP needs"):
            macs_at_equal_map(baseline, other)
        return
    found = macs_at_equal_map(baseline, other)
    assert found.overlap == (pytest.approx(low), pytest.approx(high))
    steps = 4000
    grids = []
    for values in (first, second):
        logs = np.log(MACS[: len(values)])
        macs = np.unique(np.concatenate([np.linspace(logs[0], logs[-1], steps), logs]))
        grids.append((macs, np.maximum.accumulate(np.interp(macs, logs, values))))
    levels = low + (np.arange(steps) + 0.5) / steps * (high - low)
    walked = [macs[np.searchsorted(reached, levels)] for macs, reached in grids]
    expected = np.mean(walked[1] - walked[0])
    assert np.log1p(-found.mean.value / 100) == pytest.approx(expected, abs=2e-3)
    for saving in found.savings:
        for values, macs in ((first, saving.baseline_macs), (second, saving.macs)):
            logs = np.log(MACS[: len(values)])
            assert np.interp(np.log(macs), logs, values) == pytest.approx(saving.level, abs=1e-5)
            before = np.linspace(logs[0], np.log(macs) - 1e-5, 500)
            # The first of a curve may be this good itself.
            if macs > MACS[0]:
                assert np.interp(before, logs, values).max() < saving.level


def test_what_a_level_needs() -> None:
    base = curve("baseline", BASE)
    assert base.macs_at(0.30) == pytest.approx(MACS[0])
    assert base.macs_at(0.46) == pytest.approx(MACS[-1])
    assert base.macs_at(0.34) == pytest.approx((MACS[0] * MACS[1]) ** 0.5)
    with pytest.raises(ValueError, match=r"a mAP of 0\.290 .* has 0\.300 at 96 pixels, its lowest"):
        base.macs_at(0.29)
    with pytest.raises(ValueError, match=r"a mAP of 0\.470 .* 0\.460 at best, up to 192 pixels"):
        base.macs_at(0.47)


def test_means_and_standard_errors() -> None:
    three = curve("baseline", BASE, spread=0.01)
    assert three.means == pytest.approx(BASE)
    assert three.standard_errors == pytest.approx([0.01 / 3**0.5] * 4)
    assert curve("baseline", BASE, seeds=(5,)).standard_errors == (None,) * 4


def test_what_is_not_reached_is_told_and_not_guessed() -> None:
    higher = tuple(value + 0.03 for value in BASE)
    found = macs_at_equal_map(curve("baseline", BASE), curve("netaug", higher))
    assert [saving.resolution for saving in found.savings] == [128, 160, 192]
    assert found.notes[1:] == (
        "baseline at 96 pixels (mAP 0.300) has no saving: netaug has 0.330 at 96 pixels, its "
        "lowest resolution, and nothing is extrapolated; train it at lower ones",
    )
    found = macs_at_equal_map(curve("baseline", higher), curve("netaug", BASE))
    assert [saving.resolution for saving in found.savings] == [96, 128, 160]
    assert (
        "baseline at 192 pixels (mAP 0.490) has no saving: netaug has 0.460 at best"
        in (found.notes[1])
    )
    assert all(saving.fewer.value < 0 for saving in found.savings)
    assert found.mean.value < 0


def test_a_baseline_that_falls() -> None:
    found = macs_at_equal_map(curve("baseline", (0.4, 0.35, 0.5)), curve("netaug", (0.2, 0.4, 0.6)))
    assert found.notes[0] == (
        "baseline is not always better at a higher resolution: the fewest MACs that reach a mAP "
        "count"
    )
    assert found.notes[2] == (
        "baseline at 128 pixels (mAP 0.350) has no saving: baseline has 0.400 at 96 pixels, its "
        "lowest resolution, and nothing is extrapolated; train it at lower ones"
    )
    assert [saving.resolution for saving in found.savings] == [96, 160]


def by_hand(first: Any, second: Any, resamples: int, seed: int) -> Any:
    """The mean over the overlap in every resample, one after the other."""
    rng = np.random.default_rng(seed)
    logs = np.log(MACS)
    values = []
    for drawn in rng.integers(first.shape[1], size=(resamples, first.shape[1])):
        one, other = first[:, drawn].mean(1), second[:, drawn].mean(1)
        low, high = max(one[0], other[0]), min(one[-1], other[-1])
        levels = np.unique(np.concatenate([[low, high], one, other]).clip(low, high))
        gaps = np.interp(levels, other, logs) - np.interp(levels, one, logs)
        values.append(np.trapezoid(gaps, levels) / (high - low))
    return np.array(values)


def test_the_interval_is_of_resampled_seeds() -> None:
    """All that is drawn by hand; 2.2010 is Student's t of 11 degrees."""
    rng = np.random.default_rng(0)
    first, second = (np.array(m)[:, None] + rng.normal(0, 0.01, (4, 12)) for m in (BASE, BASE))
    second = second + 0.02
    seeds = tuple(range(12))
    curves = [
        DetectorCurve(name, RESOLUTIONS, MACS, seeds, tuple(map(tuple, maps.tolist())))
        for name, maps in (("baseline", first), ("netaug", second))
    ]
    found = macs_at_equal_map(curves[0], curves[1], resamples=2000, seed=3)
    values = 100 * (1 - np.exp(by_hand(first, second, 2000, 3)))
    tail = 0.0107566  # the normal share below sqrt(12 / 11) x -2.2010
    assert found.mean.low == pytest.approx(np.quantile(values, tail), abs=0.05)
    assert found.mean.high == pytest.approx(np.quantile(values, 1 - tail), abs=0.05)
    assert found.notes[0].startswith("baseline at 96 pixels")
    assert found == macs_at_equal_map(curves[0], curves[1], resamples=2000, seed=3)
    assert found.mean != macs_at_equal_map(curves[0], curves[1], resamples=2000, seed=4).mean


def test_the_same_seeds_are_drawn_for_both() -> None:
    """Seeds that shift both curves alike make no difference to what lies between them."""
    base = curve("baseline", BASE, spread=0.02)
    found = macs_at_equal_map(base, curve("netaug", BASE, spread=0.02, macs=[m // 2 for m in MACS]))
    assert (found.mean.low, found.mean.high) == pytest.approx((50, 50))
    turned = DetectorCurve(
        "netaug", RESOLUTIONS, MACS, (2, 1, 0), tuple(m[::-1] for m in base.maps)
    )
    assert macs_at_equal_map(base, turned).mean.high == pytest.approx(0, abs=1e-9)
    apart = curve("netaug", BASE, spread=0.02, seeds=(7, 8, 9), macs=[m // 2 for m in MACS])
    found = macs_at_equal_map(base, apart)
    assert found.mean.low is not None and found.mean.low < 45
    assert found.notes[1] == "the seeds differ: they are drawn for each method apart"


def test_a_bound_beyond_what_was_measured_is_missing() -> None:
    """At the baseline's best mAP: where its seeds are lucky, the other never gets there."""
    base = curve("baseline", BASE, spread=0.01)
    other = curve("netaug", BASE, spread=-0.01)
    found = macs_at_equal_map(base, other)
    last = found.savings[-1]
    assert last.resolution == 192
    assert last.fewer.low is None
    assert last.fewer.high is not None and last.fewer.high > 0
    assert str(last.fewer) == f"0 % (? to {last.fewer.high:.0f})"
    assert found.savings[0].fewer.high is None


def test_one_seed_has_no_interval() -> None:
    found = macs_at_equal_map(curve("baseline", BASE, seeds=(0,)), cheaper(0.5))
    assert (found.mean.low, found.mean.high) == (None, None)
    assert all(saving.fewer.low is None for saving in found.savings)
    assert found.notes[0] == "one seed: there is no interval"
    assert str(found.mean) == "50 %"


def test_few_seeds_are_told() -> None:
    found = macs_at_equal_map(curve("baseline", BASE), cheaper(0.5))
    assert found.notes == (
        "3 seeds: an interval of the bootstrap over so few holds the truth in about 75 % of "
        "cases, not 95 %",
    )
    many = [curve(name, BASE, seeds=range(6)) for name in ("baseline", "netaug")]
    assert macs_at_equal_map(many[0], many[1]).notes == ()


def test_it_can_be_written_as_json() -> None:
    found = macs_at_equal_map(curve("baseline", BASE), cheaper(0.59))
    read = json.loads(json.dumps(found.to_dict()))
    assert read["mean"]["value"] == found.mean.value
    assert read["savings"][3]["fewer"]["value"] == pytest.approx(41, abs=1e-4)
    assert EqualMap.__dataclass_fields__.keys() == read.keys()


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            BASE,
            tuple(value + 0.2 for value in BASE),
            r"netaug has 0\.500 or more and baseline 0\.460 or less, and nothing is extrapolated; "
            "train netaug at lower resolutions or baseline at higher ones",
        ),
        (
            tuple(value + 0.2 for value in BASE),
            BASE,
            r"baseline has 0\.500 or more and netaug 0\.460 or less.* train baseline at lower",
        ),
        (BASE, (0.4, 0.3, 0.2), "curves that rise, but netaug is best at 96 pixels, its lowest"),
    ],
)
def test_curves_without_an_overlap(first: Any, second: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        macs_at_equal_map(curve("baseline", first), curve("netaug", second))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"resolutions": (96,), "macs": (5,), "maps": ((0.1,),)},
            "2 or more resolutions, but base",
        ),
        ({"macs": (5, 6, 7)}, "has 2 resolutions, MACs of 3 and mAP of 2"),
        ({"macs": (6, 6)}, "MACs must be positive and rise .* are 6, 6"),
        ({"macs": (0, 6)}, "MACs must be positive and rise .* are 0, 6"),
        ({"resolutions": (128, 96)}, "resolutions must be positive and rise .* are 128, 96"),
        ({"seeds": (0, 0)}, r"base needs one or more seeds, each once, but has \(0, 0\)"),
        ({"seeds": (), "maps": ((), ())}, r"base needs one or more seeds, each once, but has \(\)"),
        ({"maps": ((0.1, 0.2), (0.3,))}, "mAP of every seed, but base at 128 has 1 of 2"),
        ({"maps": ((0.1, 0.2), (0.3, 41.2))}, r"base at 128 has 41\.2; divide per cents by 100"),
        ({"maps": ((0.1, float("nan")), (0.3, 0.4))}, "base at 96 has nan"),
    ],
)
def test_bad_curves(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "name": "base",
        "resolutions": (96, 128),
        "macs": (5, 6),
        "seeds": (0, 1),
        "maps": ((0.1, 0.2), (0.3, 0.4)),
    }
    DetectorCurve(**good)
    with pytest.raises(ValueError, match=message):
        DetectorCurve(**(good | change))
