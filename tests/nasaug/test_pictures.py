"""Pictures: what is drawn is what the values say, nothing overlaps, files are whole and alike."""

from __future__ import annotations

import itertools
import random
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from scipy.stats import f_oneway

from nasaug.pictures import (
    Point,
    Quantity,
    architecture_figure,
    cost_figure,
    draw_architecture,
    draw_space,
    history_figure,
    importance_figure,
    inline_svg,
    pareto_front,
    render,
    space_figure,
    supernet_figure,
)
from nasaug.pictures.canvas import BLUE, GREEN, ORANGE, RED, plain, style
from nasaug.pipelines.importances import chance, variance_explained
from nasaug.supernet import (
    Architecture,
    ChoicePath,
    SearchSpace,
    Skip,
    load_space,
    load_target,
)

MACS, TOP1 = Quantity("MACs", "{:,.0f}".format), Quantity("top-1", "{:.2f}".format)


@pytest.fixture(scope="module")
def micro() -> SearchSpace:
    return SearchSpace.around(load_target("micro_10k", 10))


def _some_path(space: SearchSpace, seed: int = 0) -> ChoicePath:
    return space.path(space.sample(random.Random(seed)))


def _texts(figure: Figure) -> list[Any]:
    figure.canvas.draw()
    return [t for axes in figure.axes for t in axes.texts if t.get_text() and t.get_visible()]


def _overlaps(figure: Figure) -> list[tuple[str, str]]:
    """Pairs of texts that lie over one another, and texts that reach beyond the sheet."""
    with style():
        renderer = FigureCanvasAgg(figure).get_renderer()
        boxes = [(t.get_text(), t.get_window_extent(renderer)) for t in _texts(figure)]
    sheet = figure.bbox
    found = [
        (text, "the edge")
        for text, box in boxes
        if not (sheet.x0 <= box.x0 and box.x1 <= sheet.x1)
        or not (sheet.y0 <= box.y0 and box.y1 <= sheet.y1)
    ]
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        # A pixel of play: boxes of text have a margin of their own.
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1:
            found.append((one, other))
    return found


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("mbv2_tiny", {}),
        ("micro_10k", {"extra_depth": (0, 1, 2), "kernel_growth": (0, 2, 4)}),
        ("resnet50", {"width": (1, 1.5, 2, 2.5, 3)}),
        ("mcunet", {"expand": tuple(1 + i / 10 for i in range(12))}),
    ],
)
def test_a_space_can_be_read(target: str, options: dict[str, Any]) -> None:
    space = SearchSpace.around(load_target(target, 10), **options)
    assert _overlaps(space_figure(space, _some_path(space))) == []


@pytest.mark.parametrize("target", ["mbv2_tiny", "resnet50", "mbv3_w035"])
def test_an_architecture_can_be_read(target: str) -> None:
    space = SearchSpace.around(load_target(target, 1000))
    assert _overlaps(architecture_figure(space.target, space.largest)) == []


def test_the_path_drawn_is_the_path(micro: SearchSpace) -> None:
    path = _some_path(micro)
    arch = micro.architecture(path)
    figure = space_figure(micro, path)
    boxes = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyBboxPatch)]
    assert len(boxes) == micro.graph().number_of_nodes()
    red = [box for box in boxes if to_hex(box.get_facecolor()) == RED.lower()]
    places = sorted((box.get_y(), box.get_x() + box.get_width() / 2) for box in red)
    (line,) = [line for line in figure.axes[0].lines if line.get_color() == RED]
    assert [x for _, x in places] == pytest.approx(list(line.get_xdata()))
    widths = {t.get_position(): t.get_text() for t in _texts(figure)}
    shown = [widths[x, y] for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]
    assert shown == [f"{width:,}" for width in (*arch.widths_in, arch.num_classes)]


def test_the_chosen_options_of_every_row_stand_out(micro: SearchSpace) -> None:
    paths = (_some_path(micro, seed) for seed in itertools.count())
    path = next(p for p in paths if Skip() in micro.architecture(p).rows)
    figure = space_figure(micro, path)
    strong = [t for t in _texts(figure) if t.get_color() == RED and t.get_weight() == "bold"]
    for index, (row, made) in enumerate(
        zip(micro.rows, micro.architecture(path).rows, strict=True)
    ):
        y = 0.42 * (index + 0.5)
        said = {t.get_text() for t in strong if abs(t.get_position()[1] - y) < 0.01}
        choice = row.choices[path[index]]
        expected = set() if isinstance(made, Skip) else {choice.kernel, choice.expand} - {None}
        assert said == {f"{value:g}" for value in expected}, row.name


def test_lines_are_thicker_where_more_choices_lead(micro: SearchSpace) -> None:
    figure = space_figure(micro)
    count = Counter((tail, head) for tail, head, _ in micro.graph().edges)
    lines = figure.axes[0].lines
    assert len(lines) == len(count)
    widths: dict[int, set[float]] = {}
    for line, choices in zip(lines, count.values(), strict=True):
        widths.setdefault(choices, set()).add(round(line.get_linewidth(), 6))
    assert all(len(same) == 1 for same in widths.values())
    assert len(widths) > 2
    drawn = [min(widths[choices]) for choices in sorted(widths)]
    assert drawn == sorted(drawn)
    assert len(set(drawn)) == len(drawn)


def test_a_path_and_its_architecture_give_the_same_picture(
    micro: SearchSpace, tmp_path: Path
) -> None:
    path = _some_path(micro)
    draw_space(micro, tmp_path / "path.svg", path)
    draw_space(micro, tmp_path / "arch.svg", micro.architecture(path).canonical())
    draw_space(micro, tmp_path / "none.svg")
    one, other, none = ((tmp_path / f"{n}.svg").read_bytes() for n in ("path", "arch", "none"))
    assert one == other != none


def test_what_is_not_in_the_space_is_not_drawn(micro: SearchSpace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not contain|reads 3"):
        draw_space(micro, tmp_path / "x.svg", load_target("mbv2_tiny", 10))
    with pytest.raises(ValueError, match="no path of the space"):
        draw_space(micro, tmp_path / "x.svg", (0,) * (len(micro.rows) + 1))
    with pytest.raises(ValueError, match="does not contain micro_10k"):
        draw_architecture(load_target("micro_10k", 10), load_target("micro_10k", 7), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["picture.pdf", "picture", "picture.svgz"])
def test_another_ending_is_refused(name: str, micro: SearchSpace, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must end in \.svg or \.png, but got .*picture"):
        draw_space(micro, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_png_is_an_image_and_an_svg_is_xml_without_links(
    micro: SearchSpace, tmp_path: Path
) -> None:
    draw_space(micro, tmp_path / "space.PNG")
    with Image.open(tmp_path / "space.PNG") as image:
        assert image.format == "PNG"
        assert image.width > 500
    text = render(space_figure(micro), "svg").decode()
    ElementTree.fromstring(text)
    kept = re.sub(r' xmlns(:\w+)?="[^"]*"|<!DOCTYPE[^>]*>', "", text)
    assert "http" not in kept
    for row in micro.rows:
        assert f">{row.name}<" in text


def test_bars_say_what_grew() -> None:
    target = load_target("micro_10k", 10)
    space = SearchSpace.around(target)
    largest = space.largest.canonical()
    figure = architecture_figure(target, largest)
    texts = [t.get_text() for t in _texts(figure)]
    assert "8 → 24" in texts  # the stem: 2.6 times 8 is 20.8, rounded to 24
    assert "64 → 168" in texts  # the head: 2.6 times 64 is 166.4
    assert texts.count("3 → 5") == 5  # every depthwise kernel of the target
    green = {t.get_text() for t in _texts(figure) if t.get_color() == GREEN}
    assert {"stage2.block3", "stage3.block3"} <= green
    assert "stage2.block2" not in green
    bars = Counter(to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches)
    # Columns: 11 rows have channels, 6 inner ones, 10 MACs; a legend's square a colour.
    # Two rows are extra: they have no share of the target.
    assert bars[GREEN.lower()] == 2 * 3 + 1
    assert bars[ORANGE.lower()] == (11 - 2) + (6 - 2) + (10 - 2) + 1
    assert bars[BLUE.lower()] == bars[ORANGE.lower()]


def test_the_target_over_itself_has_no_arrow() -> None:
    target = load_target("micro_10k", 10)
    texts = [t.get_text() for t in _texts(architecture_figure(target, target))]
    # Feature maps shrink; MACs and parameters of the whole stand once as a change.
    assert sum("→" in text for text in texts) == 4 + 1


def test_a_network_by_itself_is_all_dark() -> None:
    target = load_target("micro_10k", 10)
    figure = architecture_figure(None, target)
    texts = [t.get_text() for t in _texts(figure)]
    assert not any("target" in text for text in texts)
    assert sum("→" in text for text in texts) == 4  # feature maps shrink
    bars = Counter(to_hex(bar.get_facecolor()) for bar in figure.axes[0].patches)
    assert bars[GREEN.lower()] == 0
    assert bars[BLUE.lower()] == bars[ORANGE.lower()] > 0  # beneath the dark, nothing is seen


def test_a_space_of_its_own_is_around_nothing() -> None:
    texts = [t.get_text() for t in _texts(space_figure(load_space("micro_down", 10)))]
    assert "Search space micro_down" in texts
    assert "optional inverted residual" in texts
    assert not any("target" in text or "extra" in text for text in texts)


@given(st.text())
def test_names_become_printable_and_short(name: str) -> None:
    clean = plain(name, 20)
    assert len(clean) <= 20
    assert clean.isprintable()
    if name.isprintable() and len(name) <= 20:
        assert clean == name


@settings(max_examples=12, deadline=None)
@given(st.text(min_size=1, max_size=12))
def test_any_name_gives_a_whole_picture(name: str) -> None:
    target = replace(load_target("micro_10k", 10), name=f"$x_{{{name}<&")
    text = render(architecture_figure(target, target), "svg").decode()
    shown = "".join(ElementTree.fromstring(text).itertext())
    assert plain(target.name) in shown


POINTS = st.lists(
    st.builds(
        Point,
        number=st.integers(0, 99),
        cost=st.integers(0, 9).map(float),
        value=st.integers(0, 9).map(float),
    ),
    max_size=25,
)


@given(POINTS, st.booleans())
def test_the_front_is_what_nothing_betters(points: list[Point], smaller: bool) -> None:
    sign = 1 if smaller else -1

    def betters(a: Point, b: Point) -> bool:
        pair = (sign * a.cost, -a.value), (sign * b.cost, -b.value)
        return pair[0] != pair[1] and all(x <= y for x, y in zip(*pair, strict=True))

    best = {(p.cost, p.value) for p in points if not any(betters(q, p) for q in points)}
    front = pareto_front(points, smaller)
    assert {(p.cost, p.value) for p in front} == best
    assert len(front) == len(best)


def _spans(figure: Figure) -> list[tuple[float, float]]:
    patches = [p for p in figure.axes[0].patches if to_hex(p.get_facecolor()) == RED.lower()]
    return [(p.get_x(), p.get_x() + p.get_width()) for p in patches]  # type: ignore[attr-defined]


def test_what_the_limits_forbid_is_shaded() -> None:
    points = [Point(i, 100.0 + 10 * i, 0.5 + 0.01 * i, pruned=i == 3) for i in range(6)]
    figure = cost_figure(points, MACS, TOP1, (95.0, 160.0), chosen=5)
    (low, high) = _spans(figure)[::-1]
    left, right = figure.axes[0].get_xlim()
    assert high == (160.0, right) or low == (160.0, right)
    assert (left, 95.0) in (low, high)
    assert left < 95.0 < 160.0 < right
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == [
        "judged",
        "dropped early, interim judgement",
        "best for its cost",
        "the winner",
    ]
    star = [line for line in figure.axes[0].lines if line.get_marker() == "*"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in star] == [(150.0, 0.55)]


def test_a_limit_far_away_is_told_in_words() -> None:
    points = [Point(0, 1.0, 0.5), Point(1, 2.0, 0.6)]
    figure = cost_figure(points, MACS, TOP1, (None, 1000.0))
    assert _spans(figure) == []
    assert figure.axes[0].get_title(loc="right") == "limit 1,000: further right"
    assert figure.axes[0].get_xlim()[1] < 10


def test_plots_of_nothing_and_of_one_are_drawn() -> None:
    for points in ([], [Point(0, 5.0, 0.5)], [Point(0, 5.0, 0.5, pruned=True)]):
        for figure in (
            cost_figure(points, MACS, TOP1, (1.0, 6.0), chosen=0),
            history_figure(points, TOP1),
        ):
            ElementTree.fromstring(render(figure, "svg"))
    ElementTree.fromstring(render(supernet_figure([1.0], {"path": [2.0]}), "svg"))


def test_history_shows_the_best_so_far() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(30).tolist()
    points = [Point(i, 1.0, value, pruned=i % 7 == 3) for i, value in enumerate(values)]
    rng.shuffle(points)  # type: ignore[arg-type]
    (line,) = history_figure(points, TOP1).axes[0].lines
    full = [(i, value) for i, value in enumerate(values) if i % 7 != 3]
    assert list(line.get_xdata()) == [i for i, _ in full]
    assert list(line.get_ydata()) == np.maximum.accumulate([v for _, v in full]).tolist()


def test_importances_begin_with_the_largest() -> None:
    shares = {f"row{i}.width": i / 100 for i in range(30)}
    figure = importance_figure(shares, dict.fromkeys(shares, 0.05), TOP1)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"row{i}.width" for i in range(29, 13, -1)]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [
        i / 100 for i in range(29, 13, -1)
    ]


def test_pictures_on_one_page_do_not_share_identifiers(micro: SearchSpace) -> None:
    points = [Point(i, float(i), float(i % 3), pruned=i == 1) for i in range(6)]
    one = inline_svg(cost_figure(points, MACS, TOP1, (None, 7.0)), "one")
    two = inline_svg(cost_figure(points, MACS, TOP1, (None, 7.0)), "two")
    page = f"<html>{one}{two}</html>"
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 0
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page)
    assert {a or b for a, b in references} == set(ids)
    ElementTree.fromstring(page)


def test_equal_figures_are_equal_files(micro: SearchSpace) -> None:
    for kind in ("svg", "png"):
        assert render(space_figure(micro), kind) == render(space_figure(micro), kind)


def _omega_by_scipy(groups: list[int], values: list[float]) -> float:
    """Omega squared from the F statistic: (k - 1)(F - 1) / ((k - 1)(F - 1) + n)."""
    parts = [[v for g, v in zip(groups, values, strict=True) if g == k] for k in set(groups)]
    excess = (len(parts) - 1) * (f_oneway(*parts).statistic - 1)
    return float(max(0.0, excess / (excess + len(values))))


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(12, 60))
def test_shares_agree_with_scipys_analysis_of_variance(seed: int, count: int, trials: int) -> None:
    rng = random.Random(seed)
    groups = [*range(count), *(rng.randrange(count) for _ in range(trials - count))]
    values = [rng.gauss(0.3 * group, 1) for group in groups]
    other = [rng.randrange(2) for _ in groups]
    decisions = [{"a": g, "b": bool(o)} for g, o in zip(groups, other, strict=True)]
    shares = variance_explained(decisions, values)
    assert list(shares) == ["a", "b"]
    assert shares["a"] == pytest.approx(_omega_by_scipy(groups, values), abs=1e-9)


def test_shares_of_the_extremes() -> None:
    decisions = [{"all": i % 4, "none": (i // 4) % 2, "one": 7, "each": i} for i in range(40)]
    values = [float(i % 4) for i in range(40)]
    shares = variance_explained(decisions, values)
    assert shares["all"] == pytest.approx(1.0)
    assert shares["none"] == shares["one"] == shares["each"] == 0.0
    assert set(variance_explained(decisions, [0.5] * 40).values()) == {0.0}
    assert variance_explained([], []) == {}


def test_a_decision_that_does_not_matter_stays_below_chance_nineteen_times_in_twenty() -> None:
    rng = random.Random(5)
    beyond, runs = 0, 300
    decisions = [{"idle": i % 3} for i in range(24)]
    for _ in range(runs):
        values = [rng.gauss(0, 1) for _ in decisions]
        limit = chance(decisions, values)["idle"]
        beyond += variance_explained(decisions, values)["idle"] > limit
    # Binomial(300, 0.05) lies in 3..28 but for one case in ten thousand on either side.
    assert 3 <= beyond <= 28


def test_chance_repeats() -> None:
    decisions = [{"a": i % 3} for i in range(12)]
    values = [float(i * i % 7) for i in range(12)]
    assert chance(decisions, values) == chance(decisions, values)
    assert chance(decisions, values, seed=1) != chance(decisions, values)


def test_an_architecture_without_blocks_is_drawn(tmp_path: Path) -> None:
    table = {
        "resolution": 16,
        "rows": [
            {"kind": "conv", "kernel": 3, "stride": 2, "out": 8, "act": "relu"},
            {"kind": "global_avg_pool"},
            {"kind": "linear", "out": 3},
        ],
    }
    plain_target = Architecture.from_dict(table)
    draw_architecture(plain_target, plain_target, tmp_path / "plain.svg")
    draw_space(SearchSpace.around(plain_target), tmp_path / "space.svg")
    for name in ("plain.svg", "space.svg"):
        ElementTree.parse(tmp_path / name)
