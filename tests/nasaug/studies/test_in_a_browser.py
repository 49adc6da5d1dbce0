"""The report and the dashboard in a real Chromium, without a window and without a network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Nasaug = Callable[..., Any]

WHOLE = "return arguments[0].complete && arguments[0].naturalWidth > 100"


def test_the_report_opens_from_a_file(browser: Any, nasaug: Nasaug, run: Path) -> None:
    assert nasaug("report", "run").code == 0
    page = (run / "report.html").resolve().as_uri()
    browser.open(page)
    driver = browser.driver
    shown = [head.text for head in driver.find_elements("css selector", "section h2")]
    assert shown == [
        "What was searched",
        "The winner over the target",
        "The ten best",
        "Judgements over costs",
        "History",
        "Which decisions matter",
        "What it costs",
        "How to read this",
    ]
    for name in ("winner", "costs", "history", "importances", "effort"):
        pictures = driver.find_elements("css selector", f"#{name} > figure svg, #{name} .side svg")
        assert pictures, name
        for picture in pictures:
            assert picture.size["width"] > 300, name
            assert picture.size["height"] > 100, name
    width = driver.execute_script("return document.documentElement.scrollWidth")
    assert width <= driver.execute_script("return window.innerWidth")
    browser.wait_for_text("micro_10k trial")
    assert browser.asked_for() == [page]
    assert browser.complaints() == []


def test_the_dashboard_shows_the_study(
    browser: Any, run: Path, prepared: Callable[..., Any], serving: Callable[..., Any]
) -> None:
    searched, storage, artifacts = prepared(run)
    with serving(storage, artifacts) as home:
        _see_the_study(browser, home, searched.winner.number, searched.winner.costs["macs"])


def _see_the_study(browser: Any, home: str, winner: int, macs: int) -> None:
    driver = browser.driver
    served = f"{home}/dashboard/studies/0"

    browser.open(served)
    browser.wait_for_text("Best Trial")
    browser.wait_for_text("Hyperparameter Importance")
    browser.wait_for_text("History")
    # Points of the history and bars of the importances are drawn, not only their headings.
    browser.wait(lambda d: len(d.find_elements("css selector", ".scatterlayer .point")) >= 16)
    browser.wait(lambda d: len(d.find_elements("css selector", ".barlayer .point")) >= 20)
    body = driver.find_element("tag name", "body").text
    assert "head.width" in body
    assert "accuracy" in body

    driver.get(f"{served}/note")
    browser.wait_for_text("How to read the plots")
    body = driver.find_element("tag name", "body").text
    assert "Search around micro_10k, at most 3,000,000 MACs" in body
    assert f"{macs:,}" in body
    picture = browser.wait(lambda d: d.find_elements("css selector", "img[alt*='winner']"))[0]
    browser.wait(lambda d: d.execute_script(WHOLE, picture))

    driver.get(f"{served}/trials?numbers={winner}")
    browser.wait_for_text("architecture.svg")
    picture = browser.wait(lambda d: d.find_elements("css selector", "img[src*='/artifacts/']"))[0]
    browser.wait(lambda d: d.execute_script(WHOLE, picture))
    assert f"macs {macs}" in driver.find_element("tag name", "body").text

    asked = browser.asked_for()
    assert asked
    assert [url for url in asked if not url.startswith(f"{home}/")] == []
