"""The relational loss against the paper's formulas in loops, its gradients, its memory."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nasaug.training import relational_loss


def _huber(x: float, y: float) -> float:
    return (x - y) ** 2 / 2 if abs(x - y) <= 1 else abs(x - y) - 0.5


def _length(vector: np.ndarray) -> float:
    return math.sqrt(sum(value * value for value in vector.tolist()))


def _distances_by_hand(x: np.ndarray) -> dict[tuple[int, int], float]:
    pairs = list(itertools.permutations(range(len(x)), 2))
    lengths = {(i, j): _length(x[i] - x[j]) for i, j in pairs}
    mean = sum(lengths.values()) / len(pairs)
    return {pair: length / mean if mean else 0.0 for pair, length in lengths.items()}


def _angle_by_hand(x: np.ndarray, i: int, j: int, k: int) -> float:
    first, second = x[i] - x[j], x[k] - x[j]
    lengths = _length(first) * _length(second)
    return float(first @ second) / lengths if lengths else 0.0


def _by_hand(
    teacher: np.ndarray,
    student: np.ndarray,
    distance: float,
    angle: float,
    anchors: list[int] | None = None,
) -> float:
    total = 0.0
    if distance:
        of_t, of_s = _distances_by_hand(teacher), _distances_by_hand(student)
        total += distance * float(np.mean([_huber(of_t[pair], of_s[pair]) for pair in of_t]))
    if angle:
        triplets = [
            (i, j, k)
            for i, j, k in itertools.permutations(range(len(student)), 3)
            if anchors is None or j in anchors
        ]
        losses = [
            _huber(_angle_by_hand(teacher, *triplet), _angle_by_hand(student, *triplet))
            for triplet in triplets
        ]
        total += angle * float(np.mean(losses))
    return total


def _embeddings(seed: int, images: int, widths: tuple[int, int] = (5, 3)) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(images, width)) for width in widths]


@given(
    seed=st.integers(0, 2**32),
    images=st.integers(3, 7),
    widths=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    distance=st.sampled_from([0.0, 1.0, 0.3]),
    angle=st.sampled_from([0.0, 2.0, 0.7]),
    scale=st.floats(1e-3, 1e3),
)
@settings(max_examples=80, deadline=None)
def test_relational_loss_is_the_formula(
    seed: int,
    images: int,
    widths: tuple[int, int],
    distance: float,
    angle: float,
    scale: float,
) -> None:
    teacher, student = _embeddings(seed, images, widths)
    teacher *= scale
    found = relational_loss(torch.tensor(teacher), torch.tensor(student), distance, angle)
    expected = _by_hand(teacher, student, distance, angle)
    assert found.dtype == torch.float64
    assert float(found) == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_the_angle_counts_twice_the_distance_unless_told() -> None:
    teacher, student = _embeddings(0, 5)
    found = relational_loss(torch.tensor(teacher), torch.tensor(student))
    assert float(found) == pytest.approx(_by_hand(teacher, student, 1.0, 2.0), rel=1e-9)


def test_a_pair_has_a_distance_but_no_angle() -> None:
    teacher, student = _embeddings(1, 2)
    # The mean distance of one pair is its own, so that all pairs look alike.
    assert float(relational_loss(torch.tensor(teacher), torch.tensor(student), 1.0, 0.0)) == 0
    with pytest.raises(ValueError, match=r"relational angles need a batch of at least 3 images"):
        relational_loss(torch.tensor(teacher), torch.tensor(student))


def test_moving_turning_and_scaling_the_embeddings_changes_nothing() -> None:
    teacher, student = (torch.tensor(x) for x in _embeddings(2, 6))
    turned = torch.linalg.qr(torch.tensor(_embeddings(3, 5)[0]))[0]
    alike = 3.5 * teacher @ turned + 2
    assert float(relational_loss(teacher, alike)) == pytest.approx(0, abs=1e-12)
    torch.testing.assert_close(relational_loss(alike, student), relational_loss(teacher, student))


@pytest.mark.parametrize(("distance", "angle"), [(1.0, 0.0), (0.0, 2.0), (1.0, 2.0)])
def test_gradients_of_both_arguments_are_those_of_the_loss(distance: float, angle: float) -> None:
    teacher, student = (torch.tensor(x).requires_grad_() for x in _embeddings(4, 5))
    assert torch.autograd.gradcheck(
        lambda t, s: relational_loss(t, s, distance, angle), (teacher, student), atol=1e-7
    )


def test_gradients_at_drawn_anchors_are_those_of_the_loss() -> None:
    teacher, student = (torch.tensor(x).requires_grad_() for x in _embeddings(5, 6))

    def loss(t: Tensor, s: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(7)
        return relational_loss(t, s, anchors=2, generator=generator)

    assert torch.autograd.gradcheck(loss, (teacher, student), atol=1e-7)


@pytest.mark.parametrize("learns", [(True, False), (False, True)])
def test_gradient_reaches_only_who_is_not_detached(learns: tuple[bool, bool]) -> None:
    both = [torch.tensor(x).requires_grad_() for x in _embeddings(6, 5)]
    relational_loss(*both).backward()
    some = [
        torch.tensor(x).requires_grad_(wanted)
        for x, wanted in zip(_embeddings(6, 5), learns, strict=True)
    ]
    relational_loss(*some).backward()
    for one, other, wanted in zip(some, both, learns, strict=True):
        if wanted:
            assert one.grad is not None
            torch.testing.assert_close(one.grad, other.grad)
        else:
            assert one.grad is None


def test_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for block in (1, 3 * 49, 2**20):
        monkeypatch.setattr("nasaug.training.relational.BLOCK", {"cpu": block})
        teacher, student = (torch.tensor(x).requires_grad_() for x in _embeddings(7, 7))
        loss = relational_loss(teacher, student)
        loss.backward()
        found.append([loss.detach(), teacher.grad, student.grad])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("count", [1, 2, 5, 6, 60])
def test_anchors_are_drawn_by_the_generator(count: int) -> None:
    teacher, student = _embeddings(8, 6)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(3)).tolist()
    found = relational_loss(
        torch.tensor(teacher),
        torch.tensor(student),
        0.0,
        1.0,
        anchors=count,
        generator=torch.Generator().manual_seed(3),
    )
    expected = _by_hand(teacher, student, 0.0, 1.0, order[:count])
    assert float(found) == pytest.approx(expected, rel=1e-9)


def test_drawn_anchors_are_right_on_average() -> None:
    teacher, student = (torch.tensor(x) for x in _embeddings(9, 6))
    each = [
        float(_angles_at(teacher, student, anchor, seed)) for seed, anchor in enumerate(range(6))
    ]
    assert np.mean(each) == pytest.approx(float(relational_loss(teacher, student, 0.0, 1.0)))


def _angles_at(teacher: Tensor, student: Tensor, anchor: int, seed: int) -> Tensor:
    """The loss at one anchor: by a seed that draws it."""
    seeds = itertools.count(100 * seed)
    drawing = next(
        s for s in seeds
        if int(torch.randperm(6, generator=torch.Generator().manual_seed(s))[0]) == anchor
    )  # fmt: skip
    generator = torch.Generator().manual_seed(drawing)
    return relational_loss(teacher, student, 0.0, 1.0, anchors=1, generator=generator)


def _two_equal(x: Tensor) -> Tensor:
    return torch.cat([x[:1], x[:-1]])


def _all_equal(x: Tensor) -> Tensor:
    return x[:1].expand_as(x).contiguous()


def _nearly_equal(x: Tensor) -> Tensor:
    """Two that differ by rounding."""
    return torch.cat([x[:1] * (1 + torch.finfo(x.dtype).eps), x[:-1]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("change", [_two_equal, _all_equal, _nearly_equal])
@pytest.mark.parametrize("which", [(True, False), (False, True), (True, True)])
def test_equal_embeddings_leave_finite_gradients(
    change: Callable[[Tensor], Tensor], which: tuple[bool, bool], dtype: torch.dtype
) -> None:
    inputs = []
    for x, changed in zip(_embeddings(10, 5), which, strict=True):
        tensor = torch.tensor(x).to(dtype)
        inputs.append((change(tensor) if changed else tensor).requires_grad_())
    loss = relational_loss(*inputs)
    loss.backward()
    for x in inputs:
        assert x.grad is not None
        assert float(x.grad.abs().max()) < 10
    if change is not _nearly_equal:
        teacher, student = (x.detach().double().numpy() for x in inputs)
        assert float(loss.detach()) == pytest.approx(_by_hand(teacher, student, 1.0, 2.0), rel=1e-5)


def test_gradients_where_two_are_equal_are_those_of_the_others_alone() -> None:
    """No angle and no direction between the two; what else they are part of still counts."""
    teacher, student = (torch.tensor(x) for x in _embeddings(11, 5))
    student = _two_equal(student)

    def loss(moved: Tensor) -> Tensor:
        return relational_loss(teacher, torch.cat([student[:2], moved]))

    assert torch.autograd.gradcheck(loss, student[2:].clone().requires_grad_(), atol=1e-7)


def test_near_embeddings_have_exact_angles() -> None:
    """In float32 the law of cosines would lose them."""
    teacher, student = (x.astype(np.float32) for x in _embeddings(12, 5))
    student[1] = student[0] + 1e-4 * student[3]
    found = relational_loss(torch.tensor(teacher), torch.tensor(student), 0.0, 1.0)
    expected = _by_hand(teacher.astype(float), student.astype(float), 0.0, 1.0)
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32)],
)
def test_result_is_float32_at_least_and_autocast_changes_nothing(
    dtype: torch.dtype, expected: torch.dtype
) -> None:
    inputs = [torch.tensor(x).to(dtype).requires_grad_() for x in _embeddings(13, 6)]
    plain = relational_loss(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        inside = relational_loss(*inputs)
    assert plain.dtype == inside.dtype == expected
    assert torch.equal(plain, inside)
    inside.backward()
    assert all(x.grad is not None and x.grad.dtype == dtype for x in inputs)
    teacher, student = (x.detach().double().numpy() for x in inputs)
    assert float(plain.detach()) == pytest.approx(_by_hand(teacher, student, 1.0, 2.0), rel=1e-5)


def test_near_embeddings_in_half_precision_are_not_equal() -> None:
    """As after a ReLU: what all images share is longer than what tells them apart."""
    inputs = [torch.tensor(10 + x / 4).bfloat16() for x in _embeddings(15, 6)]
    teacher, student = (x.double().numpy() for x in inputs)
    expected = _by_hand(teacher, student, 1.0, 2.0)
    assert float(relational_loss(*inputs)) == pytest.approx(expected, rel=1e-5)
    assert len({tuple(row) for row in student.tolist()}) == 6


def test_what_is_not_finite_is_not_hidden() -> None:
    teacher, student = (torch.tensor(x) for x in _embeddings(14, 5))
    student[2, 1] = math.nan
    for distance, angle in ((1.0, 0.0), (0.0, 1.0)):
        assert math.isnan(float(relational_loss(teacher, student, distance, angle)))


LARGE = """
import resource, torch
from nasaug.training import relational_loss
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
teacher = torch.randn(512, 320, generator=generator).requires_grad_()
student = torch.randn(512, 160, generator=generator).requires_grad_()
relational_loss(teacher[:8], student[:8]).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
relational_loss(teacher, student).backward()
assert teacher.grad.isfinite().all() and float(teacher.grad.abs().max()) > 0
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_512_images_need_little_memory() -> None:
    """All cosines at once would be 1 GiB for either network, and as much for each gradient."""
    done = subprocess.run(
        [sys.executable, "-c", LARGE], capture_output=True, text=True, check=True, timeout=120
    )
    kilobytes = int(done.stdout)
    assert kilobytes < 256 * 1024


@pytest.mark.parametrize(
    ("teacher", "student"), [((4, 3), (5, 3)), ((4, 3, 1), (4, 3)), ((4, 3), (4,))]
)
def test_embeddings_must_be_of_the_same_images(
    teacher: tuple[int, ...], student: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"embeddings \(N, width\) of the same N images"):
        relational_loss(torch.zeros(teacher), torch.zeros(student))


@pytest.mark.parametrize(
    ("images", "weights", "message"),
    [
        (1, (1.0, 0.0), r"relational distances need a batch of at least 2 images, but got 1"),
        (2, (0.0, 1.0), r"relational angles need a batch of at least 3 images, but got 2"),
        (1, (1.0, 2.0), r"at least 2 images, but got 1; enlarge the batch or give distances"),
    ],
)
def test_small_batches_are_refused(images: int, weights: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        relational_loss(torch.zeros(images, 2), torch.zeros(images, 2), *weights)


@pytest.mark.parametrize("weights", [(-1.0, 2.0), (1.0, -0.1), (math.nan, 1.0)])
def test_weights_are_not_negative(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"must be at least 0, but got distance .* and angle"):
        relational_loss(torch.zeros(4, 2), torch.zeros(4, 2), *weights)


def test_there_is_at_least_one_anchor() -> None:
    with pytest.raises(ValueError, match=r"anchors must be at least 1, but got 0"):
        relational_loss(torch.zeros(4, 2), torch.zeros(4, 2), anchors=0)
