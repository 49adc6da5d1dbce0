"""Factors of a space: the authors', and those that make no space."""

from __future__ import annotations

from typing import Any

import pytest

from nasaug.supernet import SearchSpace, load_target, macs, published_factors

MICRO = load_target("micro_10k", 10)


@pytest.mark.parametrize(
    ("name", "millions", "tolerance"),
    [
        ("mbv2_tiny", 334.4, 0.1),
        ("mbv2_w035", 412.2, 0.1),
        ("proxylessnas_w035", 453.5, 0.1),
        ("mcunet", 866.3, 0.1),
        ("mbv3_w035", 360.4, 0.36),
    ],
)
def test_largest_with_the_authors_factors_costs_what_they_quote(
    name: str, millions: float, tolerance: float
) -> None:
    factors = published_factors(name)
    space = SearchSpace.around(
        load_target(name, 1000),
        width=factors.width,
        expand=factors.expand,
        kernel_growth=(0,),
        extra_depth=(0,),
        divisor=1,
    )
    assert macs(space.largest) / 1e6 == pytest.approx(millions, abs=tolerance)


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"width": (2,)}, "width factors must be from 1 to 16 with 1 among them"),
        ({"width": ()}, "width factors"),
        ({"width": (0.5, 1)}, r"width factors .* but got \[0.5, 1\]"),
        ({"width": (1, 17)}, "width factors"),
        ({"width": (1, float("nan"))}, "width factors"),
        ({"width": (1, float("inf"))}, "width factors"),
        ({"expand": (1.6,)}, "expand factors must be from 1 to 16"),
        ({"expand": (1, -1)}, "expand factors"),
        ({"kernel_growth": (2,)}, "kernel_growth must be even, from 0 to 8, with 0 among"),
        ({"kernel_growth": (0, 3)}, "kernel_growth must be even"),
        ({"kernel_growth": (-2, 0)}, "kernel_growth must be even"),
        ({"kernel_growth": (0, 10)}, "kernel_growth must be even"),
        ({"extra_depth": (1,)}, r"extra_depth must be 0, 1, 2, ... without a gap"),
        ({"extra_depth": (0, 2)}, "extra_depth"),
        ({"extra_depth": ()}, "extra_depth"),
        ({"extra_depth": range(10)}, "extra_depth"),
        ({"divisor": 0}, "divisor"),
        ({"divisor": -8}, "divisor"),
    ],
)
def test_factors_that_make_no_space_are_errors(factors: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        SearchSpace.around(MICRO, **factors)
