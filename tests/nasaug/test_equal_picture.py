"""The plot of accuracy against MACs: that it shows what it is given."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from nasaug.detection import DetectorCurve, macs_at_equal_map
from nasaug.pictures import Quantity, render
from nasaug.pictures.equal import BAND, Gap, Line, equal_figure

MACS = Quantity("MACs of the detector", lambda macs: f"{macs / 1e6:.0f}M")
MAP = Quantity("mAP", lambda value: f"{100 * value:.1f} %")
RESOLUTIONS = (96, 128, 160)
COSTS = (20_000_000, 35_000_000, 55_000_000)


def curve(name: str, means: tuple[float, ...]) -> DetectorCurve:
    maps = tuple((mean - 0.01, mean, mean + 0.01) for mean in means)
    return DetectorCurve(name, RESOLUTIONS, COSTS, (0, 1, 2), maps)


def line(curve: DetectorCurve) -> Line:
    words = [str(resolution) for resolution in curve.resolutions]
    return Line(curve.name, curve.macs, curve.means, curve.standard_errors, words)


def test_two_curves_with_the_gap_between_them() -> None:
    baseline, netaug = curve("baseline", (0.30, 0.38, 0.43)), curve("netaug", (0.33, 0.41, 0.46))
    found = macs_at_equal_map(baseline, netaug)
    saving = found.largest
    assert saving is not None
    words = f"{saving.fewer.value:.0f} % fewer MACs"
    gap = Gap(saving.level, saving.baseline_macs, saving.macs, words)
    figure = equal_figure([line(baseline), line(netaug)], MACS, MAP, [gap], found.overlap)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    bars = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
    for bar, shown in zip(bars, (baseline, netaug), strict=True):
        points, _, (sticks,) = bar.lines
        assert points is not None
        assert np.asarray(points.get_xdata()).tolist() == list(COSTS)
        assert np.asarray(points.get_ydata()).tolist() == list(shown.means)
        half = [(each[1, 1] - each[0, 1]) / 2 for each in sticks.get_segments()]
        assert half == pytest.approx(list(shown.standard_errors))
    (band,) = [each for each in axes.patches if to_hex(each.get_facecolor()).upper() == BAND]
    edges = band.get_extents().transformed(axes.transData.inverted()).get_points()[:, 1]
    assert edges == pytest.approx(found.overlap)
    arrow = next(each for each in axes.texts if each.arrow_patch is not None)
    assert arrow.xy == (saving.macs, saving.level)
    assert arrow.get_position() == (saving.baseline_macs, saving.level)
    text = render(figure, "svg").decode()
    written = set(re.findall(r">([^<>]+)</text>", text))
    assert {words, "baseline", "netaug", "96", "128", "160", "reached by both"} <= written
    assert {"20M", "30M", "50M", "MACs of the detector"} <= written
    assert render(figure, "png").startswith(b"\x89PNG")


def test_points_without_an_error_have_no_bar() -> None:
    one = Line("baseline", (1e6, 2e6), (0.1, 0.2), (None, 0.01), ("96", "128"))
    (axes,) = equal_figure([one], MACS, MAP).axes
    (bar,) = axes.containers
    assert isinstance(bar, ErrorbarContainer)
    _, _, (sticks,) = bar.lines
    assert [len(each) for each in sticks.get_segments()] == [0, 2]


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        (
            Line("baseline", (1e6, 2e6), (0.1,), (None,), ("96",)),
            "every point of baseline needs a cost, a value, an error and words, but there are 2, 1",
        ),
        (
            Line("baseline", (0, 2e6), (0.1, 0.2), (None, None), ("96", "128")),
            "costs must be positive for a logarithmic scale, but baseline has 0",
        ),
    ],
)
def test_bad_lines(shown: Line, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        equal_figure([shown], MACS, MAP)
