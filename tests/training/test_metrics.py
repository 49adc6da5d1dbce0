"""Judging at length: every number against loops written from its definition."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nasaug.supernet import Architecture, Network
from nasaug.training import Batch, Judgement, evaluate, judge, reestimate_batch_norm


class Echo(nn.Module):
    """A network whose images are its logits."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.arch = SimpleNamespace(num_classes=classes)

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training and torch.is_inference_mode_enabled()
        return x


def _judged(
    logits: Tensor, labels: Tensor, ks: tuple[int, ...] = (1, 5), batch: int = 7
) -> Judgement:
    batches = zip(logits.split(batch), labels.split(batch), strict=True)
    net: Any = Echo(logits.shape[1])
    return judge(net, batches, logits.shape[1], ks)


def _random(classes: int, images: int, tail: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits that lean towards the label; class 0 is `tail` times as frequent as the last."""
    rng = np.random.default_rng(seed)
    weights = tail ** -(np.arange(classes) / (classes - 1))
    labels = rng.choice(classes, images, p=weights / weights.sum())
    logits = rng.normal(size=(images, classes)) + 1.5 * np.eye(classes)[labels]
    return torch.from_numpy(logits).float(), torch.from_numpy(labels)


def _quotient(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _at(logits: Tensor, labels: Tensor, k: int) -> list[tuple[float, float, float]]:
    """(precision, recall, F1) at k of each class, image by image."""
    classes = logits.shape[1]
    tops = [sorted(range(classes), key=lambda c: -row[c])[:k] for row in logits.tolist()]
    found = []
    for c in range(classes):
        both = sum(
            label == c and c in top for top, label in zip(tops, labels.tolist(), strict=True)
        )
        precision = _quotient(both, sum(c in top for top in tops))
        recall = _quotient(both, labels.tolist().count(c))
        found.append((precision, recall, _quotient(2 * precision * recall, precision + recall)))
    return found


def _assert_as_defined(logits: Tensor, labels: Tensor, ks: tuple[int, ...]) -> None:
    judged = _judged(logits, labels, ks)
    assert [found.k for found in judged.at] == sorted(set(ks))
    for k in ks:
        expected, at = _at(logits, labels, k), judged.within(k)
        ours = list(zip(at.precisions, at.recalls, at.f1s, strict=True))
        np.testing.assert_allclose(ours, expected, atol=1e-12)
        macro = (at.precision, at.recall, at.f1)
        np.testing.assert_allclose(macro, np.mean(expected, axis=0), atol=1e-12)


@given(
    classes=st.integers(2, 7),
    images=st.integers(1, 40),
    ks=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    tail=st.sampled_from([1.0, 5.0, 200.0]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_precision_recall_and_f1_at_k_equal_their_definitions(
    classes: int, images: int, ks: list[int], tail: float, seed: int
) -> None:
    """Also with classes that have no image, with ever so long a tail, and k above the classes."""
    _assert_as_defined(*_random(classes, images, tail, seed), tuple(ks))


@pytest.mark.parametrize("tail", [1.0, 50.0])
def test_at_one_they_are_the_usual_ones(tail: float) -> None:
    """From the confusion matrix, in NumPy: its diagonal over its columns and over its rows."""
    logits, labels = _random(10, 2000, tail)
    judged = _judged(logits, labels, batch=128)
    matrix = np.zeros((10, 10))
    np.add.at(matrix, (labels.numpy(), logits.argmax(1).numpy()), 1)
    precision, recall = np.diag(matrix) / matrix.sum(0), np.diag(matrix) / matrix.sum(1)
    at = judged.within(1)
    np.testing.assert_allclose(at.precisions, precision)
    np.testing.assert_allclose(at.recalls, recall)
    np.testing.assert_allclose(at.f1s, 2 * precision * recall / (precision + recall))
    np.testing.assert_array_equal(judged.matrix(), matrix)
    assert judged.support == tuple(matrix.sum(1))
    # Recall weighted by the classes' sizes is accuracy; not weighted it is what a tail hides.
    assert np.average(at.recalls, weights=judged.support) == pytest.approx(judged.top1)
    assert (abs(at.recall - judged.top1) > 0.02) == (tail > 1)


def test_hand_computed_case() -> None:
    """Three classes, four images; the logits of an image rank the classes."""
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [1.0, 3.0, 2.0], [2.0, 1.0, 3.0]])
    judged = _judged(logits, torch.tensor([0, 1, 1, 0]), (1, 2))
    assert judged.top1 == 0.5
    assert judged.matrix() == [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    assert judged.within(1).precisions == (0.5, 1.0, 0.0)
    assert judged.within(1).recalls == (0.5, 0.5, 0.0)
    # Within the top 2, class 0 is named in 3 images, 2 of them its own; class 2 in 3, none its own.
    assert judged.within(2).precisions == (2 / 3, 0.5, 0.0)
    assert judged.within(2).recalls == (1.0, 0.5, 0.0)
    assert judged.within(2).f1s == pytest.approx((0.8, 0.5, 0.0))
    assert judged.within(2).f1 == pytest.approx(1.3 / 3)


def test_calibration_error_of_a_hand_computed_case() -> None:
    """Sure by 0.9 and right, sure by 0.6 and wrong: (0.1 + 0.6) / 2."""
    logits = torch.tensor([[0.9, 0.1], [0.6, 0.4]]).log()
    assert _judged(logits, torch.tensor([0, 1])).calibration_error == pytest.approx(0.35)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_calibration_error_equals_its_definition(sharpness: float) -> None:
    """Bin by bin, in NumPy."""
    logits, labels = _random(6, 900)
    judged = _judged(sharpness * logits, labels, batch=100)
    powers = np.exp((sharpness * logits).double().numpy())
    shares = powers / powers.sum(1, keepdims=True)
    confidence, right = shares.max(1), shares.argmax(1) == labels.numpy()
    expected = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert judged.calibration_error == pytest.approx(expected, abs=1e-9)


def test_confidence_on_the_edge_of_a_bin_belongs_below_it() -> None:
    """An image of confidence 5 / 15 and one of 0.35 lie in two bins, so that the error of the one
    does not make up for the other's; of a tie, topk says which class it is."""
    logits = torch.stack([torch.zeros(3), torch.tensor([0.35, 0.33, 0.32]).log()])
    tied = int(logits[:1].topk(1).indices)
    right_and_wrong = _judged(logits, torch.tensor([tied, 1]))
    assert right_and_wrong.calibration_error == pytest.approx((2 / 3 + 0.35) / 2)
    wrong_and_right = _judged(logits, torch.tensor([(tied + 1) % 3, 0]))
    assert wrong_and_right.calibration_error == pytest.approx((1 / 3 + 0.65) / 2)


@pytest.mark.parametrize("ks", [(1,), (1, 5), (2, 9)])
def test_ties_are_broken_alike_everywhere(ks: tuple[int, ...]) -> None:
    """A network that says nothing is right for as many images as the matrix says."""
    labels = torch.arange(60) % 12
    judged = _judged(torch.zeros(60, 12), labels, ks)
    assert judged.top1 * 60 == pytest.approx(np.trace(np.array(judged.matrix())))


@pytest.fixture
def judged_pair(micro: Architecture) -> Iterator[tuple[Network, list[Batch]]]:
    generator = torch.Generator().manual_seed(0)
    net = Network(micro, generator=generator)
    batches = [
        (torch.randn(n, 1, 28, 28, generator=generator), torch.arange(n) % 10) for n in (30, 17)
    ]
    reestimate_batch_norm(net, batches)
    yield net, batches


def test_long_and_quick_judgement_agree(judged_pair: tuple[Network, list[Batch]]) -> None:
    net, batches = judged_pair
    judged = judge(net, batches, 10)
    assert evaluate(net, batches) == {k: getattr(judged, k) for k in ("top1", "top5", "loss")}
    assert judged.images == 47
    assert judged.top1 * 47 == pytest.approx(np.trace(np.array(judged.matrix())))


def test_batches_are_read_once_and_nothing_changes(
    judged_pair: tuple[Network, list[Batch]],
) -> None:
    net, batches = judged_pair
    net.train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    judged = judge(net, iter(batches), 10)
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert judge(net, iter(batches), 10) == judged
    assert hash(judged) == hash(judge(net, iter(batches), 10))


def test_network_is_put_back_into_training_though_a_batch_fails(
    judged_pair: tuple[Network, list[Batch]],
) -> None:
    def failing() -> Iterable[Batch]:
        yield judged_pair[1][0]
        raise OSError("gone")

    net = judged_pair[0].train()
    with pytest.raises(OSError, match="gone"):
        judge(net, failing(), 10)
    assert net.training


def test_json_holds_all_of_it() -> None:
    logits, labels = _random(4, 50)
    judged = _judged(logits, labels, (1, 3))
    written = json.loads(json.dumps(judged.to_dict()))
    assert written["confusion"] == judged.matrix()
    assert written["support"] == labels.bincount(minlength=4).tolist()
    assert written["at"]["3"]["per_class"]["recall"] == list(judged.within(3).recalls)
    assert written["at"]["1"]["f1"] == judged.within(1).f1
    for name in ("images", "classes", "top1", "top5", "loss", "calibration_error"):
        assert written[name] == getattr(judged, name)


def test_of_many_classes_json_holds_the_cells_that_are_not_zero() -> None:
    logits, labels = _random(101, 60)
    judged = _judged(logits, labels)
    written = json.loads(json.dumps(judged.to_dict()))
    assert "confusion" not in written
    matrix = np.zeros((101, 101), int)
    for true, predicted, images in written["confusion_cells"]:
        matrix[true, predicted] = images
    assert matrix.tolist() == judged.matrix()
    assert matrix.sum() == 60


@pytest.mark.parametrize("ks", [(), (0,), (1, -1), (1.5,)])
def test_k_must_be_at_least_one(ks: Any) -> None:
    with pytest.raises(ValueError, match="ks must be integers of at least 1"):
        _judged(*_random(3, 4), ks)


def test_k_that_was_not_judged_is_refused_with_those_that_were() -> None:
    with pytest.raises(ValueError, match=r"one of those judged \(1, 5\), but got 3"):
        _judged(*_random(3, 4)).within(3)


def test_network_of_other_classes_is_refused(judged_pair: tuple[Network, list[Batch]]) -> None:
    with pytest.raises(ValueError, match="tells 10 classes apart, but is judged on 7"):
        judge(*judged_pair, 7)


def test_judgement_without_images_is_refused(
    micro: Architecture, make_network: Callable[..., Network]
) -> None:
    with pytest.raises(ValueError, match="not one image"):
        judge(make_network(micro), [], 10)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_counted_on_a_gpu_it_is_the_same() -> None:
    logits, labels = _random(10, 500, 20.0)
    here, there = _judged(logits, labels), _judged(logits.cuda(), labels.cuda())
    assert (here.at, here.confusion, here.support) == (there.at, there.confusion, there.support)
    assert here.loss == pytest.approx(there.loss)
    assert here.calibration_error == pytest.approx(there.calibration_error)
