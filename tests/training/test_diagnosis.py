"""Under-fitting or over-fitting: the verdict, its numbers and its interval."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasaug.supernet import Network, load_target
from nasaug.training import (
    Accuracy,
    View,
    class_balanced,
    diagnose,
    evaluation_batches,
    judge,
    load_dataset,
)


def test_error_that_is_made_on_training_images_already_is_under_fitting() -> None:
    found = diagnose(Accuracy(0.815, 8000), Accuracy(0.797, 2000))
    assert found.verdict == "under-fits"
    assert (found.shortfall, found.gap, found.error) == pytest.approx((0.185, 0.018, 0.203))
    assert found.share == pytest.approx(0.185 / 0.203)
    assert found.text == (
        "under-fits: 91 % (83 to 101) of the validation error of 20.3 % is already made on "
        "training images (over half: under-fits; under half: over-fits; 95 % interval)"
    )


def test_error_that_training_images_do_not_show_is_over_fitting() -> None:
    found = diagnose(Accuracy(0.99, 10_000), Accuracy(0.9, 10_000))
    assert found.verdict == "over-fits"
    assert found.text.startswith("over-fits: 10 % (")
    assert " of the validation error of 10.0 %" in found.text


@pytest.mark.parametrize(("images", "verdict"), [(200, "undecided"), (200_000, "under-fits")])
def test_too_few_images_decide_nothing(images: int, verdict: str) -> None:
    """The share is 0.6 both times."""
    found = diagnose(Accuracy(0.94, images), Accuracy(0.9, images))
    assert found.share == pytest.approx(0.6)
    assert found.verdict == verdict
    assert found.text.startswith(f"{verdict}: 60 % (")


def test_without_validation_errors_there_is_nothing_to_explain() -> None:
    found = diagnose(Accuracy(1.0, 50), Accuracy(1.0, 50))
    assert (found.verdict, found.share) == ("undecided", None)
    assert found.text == "undecided: there is no validation error to explain"


def test_no_training_error_at_all_is_over_fitting() -> None:
    found = diagnose(Accuracy(1.0, 1000), Accuracy(0.9, 1000))
    assert (found.verdict, found.share) == ("over-fits", 0)
    assert 0 <= found.low < found.high < 0.05


def test_the_same_numbers_give_the_same_interval() -> None:
    scores = Accuracy(0.7, 300), Accuracy(0.6, 200)
    assert diagnose(*scores) == diagnose(*scores)


@pytest.mark.parametrize(("train", "validation"), [(0.8, 0.75), (0.9, 0.7), (0.5, 0.5)])
def test_interval_of_many_images_is_that_of_the_delta_method(
    train: float, validation: float
) -> None:
    """Katz et al. (1978): log share +- 1.96 sqrt((1 - p) / (n p) + (1 - q) / (m q))."""
    found = diagnose(Accuracy(train, 40_000), Accuracy(validation, 10_000))
    p, q = 1 - train, 1 - validation
    spread = 1.959964 * math.sqrt((1 - p) / (40_000 * p) + (1 - q) / (10_000 * q))
    assert found.low == pytest.approx(p / q * math.exp(-spread), rel=3e-3)
    assert found.high == pytest.approx(p / q * math.exp(spread), rel=3e-3)


def test_interval_holds_the_true_share_19_times_in_20() -> None:
    """Small samples of a network of 12 % training and 20 % validation error."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        train = 1 - rng.binomial(500, 0.12) / 500
        validation = 1 - rng.binomial(250, 0.2) / 250
        found = diagnose(Accuracy(train, 500), Accuracy(validation, 250))
        held += found.low <= 0.6 <= found.high
    assert 0.91 < held / 300 < 0.99


@given(
    train=st.tuples(st.integers(0, 500), st.integers(1, 500)).filter(lambda c: c[0] <= c[1]),
    validation=st.tuples(st.integers(0, 500), st.integers(1, 500)).filter(lambda c: c[0] <= c[1]),
)
@settings(max_examples=40, deadline=None)
def test_verdict_follows_from_the_interval_whatever_the_counts(
    train: tuple[int, int], validation: tuple[int, int]
) -> None:
    (right, images), (right_v, images_v) = train, validation
    found = diagnose(Accuracy(right / images, images), Accuracy(right_v / images_v, images_v))
    assert found.shortfall + found.gap == pytest.approx(found.error)
    assert 0 <= found.low <= found.high
    if right_v == images_v or found.low <= 0.5 <= found.high:
        assert found.verdict == "undecided"
    else:
        assert found.verdict == ("under-fits" if found.low > 0.5 else "over-fits")
    assert json.loads(json.dumps(found.to_dict()))["text"] == found.text
    assert "\n" not in found.text


@pytest.mark.parametrize("scores", [Accuracy(1.2, 10), Accuracy(-0.1, 10), Accuracy(0.5, 0)])
def test_what_is_no_accuracy_is_refused(scores: Accuracy) -> None:
    fine = Accuracy(0.5, 10)
    with pytest.raises(ValueError, match="training accuracy must be a fraction"):
        diagnose(scores, fine)
    with pytest.raises(ValueError, match="validation accuracy must be a fraction"):
        diagnose(fine, scores)


def test_parts_of_other_class_frequencies_are_compared_class_by_class() -> None:
    """A class with many training images must not count more there than in validation."""
    data = load_dataset("fashion-mnist-mini", imbalance=200)
    net = Network(load_target("micro_10k", 10), generator=torch.Generator().manual_seed(0))
    view = View(28, 3)
    judged = [judge(net, evaluation_batches(data, p, view), 10) for p in (data.train, data.test)]
    for accuracy, judgement in zip(class_balanced(*judged), judged, strict=True):
        recalls = judgement.within(1).recalls
        assert accuracy.top1 == pytest.approx(sum(recalls) / 10)
        spread = sum(1 / count for count in judgement.support)
        assert accuracy.images == round(100 / spread)
    balanced = class_balanced(*judged)[1]
    assert (balanced.top1, balanced.images) == (pytest.approx(judged[1].top1), judged[1].images)
