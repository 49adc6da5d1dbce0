"""Learning how a teacher places images relative to each other: relational distillation.

Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019 (arXiv 1904.05068). With t_i and
s_i the embeddings of image i by teacher and student, and Huber's loss l(x, y) = (x - y)^2 / 2
where |x - y| <= 1, else |x - y| - 1/2:

distance  psi_D(i, j) = ||t_i - t_j|| / mu, mu the mean distance of all pairs of different images
          (their eq. 4 and 5); L_D = mean over these pairs of l(psi_D(t), psi_D(s)).
angle     psi_A(i, j, k) = cos of the angle at j in the triangle i, j, k (their eq. 7);
          L_A = mean over all ordered triplets of different images of l(psi_A(t), psi_A(s)).

Means where the paper has sums, which would grow with N^2 and N^3.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# How many cosines of each network are in memory at once: what a CPU's cache holds (512 KB; three
# times as fast as 8 MB for 512 images), more on a GPU, which would wait for launches.
BLOCK = {"cpu": 2**16, "cuda": 2**22}
# Embeddings whose distance is at most this many units of rounding of the longest count as equal;
# those in half precision are taken at their word, as float32.
ROUNDING = 16


def relational_loss(
    teacher: Tensor,
    student: Tensor,
    distance: float = 1.0,
    angle: float = 2.0,
    anchors: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """distance x L_D + angle x L_A of the embeddings teacher (N, width) and student (N, width).

    The two widths may differ. The gradient reaches both: detach the one that it must not reach.
    Time grows with N^3 and memory with N^2. `anchors` (at least 1) takes the angles at that many
    images only, drawn by `generator` (a CPU one; torch's default if None), which leaves L_A right
    on average; workers that share a loss must draw alike.

    Embeddings no further apart than their rounding count as equal: no angle is taken there, and
    the gradient stays finite. Computed in float64, since the angles come from differences of
    distances; the result is float32 at least, under autocast too.

    Raises: ValueError for shapes that do not fit, a negative weight, no anchor, or a batch that is
        too small: distances need 2 images, angles 3.
    """
    _check(teacher, student, distance, angle, anchors)
    precise = torch.promote_types(torch.promote_types(teacher.dtype, student.dtype), torch.float32)
    of_teacher, of_student = _distances(teacher), _distances(student)
    total = torch.zeros((), dtype=torch.float64, device=student.device)
    if distance > 0:
        total = total + distance * _distance_loss(of_teacher, of_student)
    if angle > 0:
        count = len(student)
        chosen = torch.arange(count)
        if anchors is not None and anchors < count:
            chosen = torch.randperm(count, generator=generator)[:anchors]
        triplets = len(chosen) * (count - 1) * (count - 2)
        summed = _SummedAngles.apply(of_teacher, of_student, chosen.to(student.device))
        total = total + angle * summed / triplets
    return total.to(precise)


def _check(
    teacher: Tensor, student: Tensor, distance: float, angle: float, anchors: int | None
) -> None:
    if teacher.ndim != 2 or student.ndim != 2 or len(teacher) != len(student):
        raise ValueError(
            "the relational loss needs embeddings (N, width) of the same N images, but got "
            f"{tuple(teacher.shape)} of the teacher and {tuple(student.shape)} of the student"
        )
    if not (distance >= 0 and angle >= 0):
        raise ValueError(
            f"the weights of the relational loss must be at least 0, but got distance {distance} "
            f"and angle {angle}"
        )
    for kind, weight, least in (("distances", distance, 2), ("angles", angle, 3)):
        if weight > 0 and len(student) < least:
            raise ValueError(
                f"relational {kind} need a batch of at least {least} images, but got "
                f"{len(student)}; enlarge the batch or give {kind} the weight 0"
            )
    if anchors is not None and anchors < 1:
        raise ValueError(f"anchors must be at least 1, but got {anchors}")


def _distances(embedding: Tensor) -> Tensor:
    """(N, width) -> (N, N) float64; 0, without a gradient, between what rounding cannot tell."""
    x = embedding.double()
    precise = torch.promote_types(embedding.dtype, torch.float32)
    rounding = ROUNDING * torch.finfo(precise).eps * x.detach().norm(dim=1).max()
    # As differences: the faster way, by products, loses the small distances.
    distances = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.where(distances <= rounding, 0.0, distances)


def _distance_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """L_D of distances (N, N)."""
    return F.huber_loss(_in_means(student), _in_means(teacher))


def _in_means(distances: Tensor) -> Tensor:
    """psi_D of the pairs i < j: the distances in units of their mean; all 0 if that is 0."""
    count = len(distances)
    rows, columns = torch.triu_indices(count, count, offset=1, device=distances.device)
    pairs = distances[rows, columns]
    mean = pairs.mean()
    return pairs / torch.where(mean == 0, 1.0, mean)


class _SummedAngles(torch.autograd.Function):
    """The sum of l(psi_A(t), psi_A(s)) over i != k at the anchors j, from distances (N, N).

    With a_i = d_ij, v_i = 1 / a_i and the law of cosines, at the anchor j

        c_ik = (a_i^2 + a_k^2 - d_ik^2) v_i v_k / 2,

    and Huber's loss has the gradient g_ik = clamp(c_ik(s) - c_ik(t), -1, 1) by c_ik(s), -g_ik by
    c_ik(t). Since c and g are symmetric in i and k,

        dL/da_i = 2 (sum_k g_ik v_k - v_i sum_k g_ik c_ik)
        dL/d(d_ik) = -d_ik g_ik v_i v_k.

    Gradients are worked out block by block on the way forward, so that no block has to be kept.
    Those by distances of 0 go nowhere: `_distances` stops them.
    """

    @staticmethod
    def forward(ctx: Any, teacher: Tensor, student: Tensor, anchors: Tensor) -> Tensor:
        total = torch.zeros((), dtype=student.dtype, device=student.device)
        sides = (teacher, student)
        gradients = [
            torch.zeros_like(d) if wanted else None
            for d, wanted in zip(sides, ctx.needs_input_grad, strict=False)
        ]
        together = max(1, BLOCK.get(student.device.type, 2**22) // student.numel())
        for block in anchors.split(together):
            cosines, inverses = zip(*(_cosines(d, block) for d in sides), strict=True)
            difference = cosines[1] - cosines[0]
            difference.diagonal(dim1=1, dim2=2).zero_()  # i = k
            slope = difference.clamp(-1, 1)
            total += ((difference - slope / 2) * slope).sum()
            for sign, gradient, d, c, v in zip(
                (-1, 1), gradients, sides, cosines, inverses, strict=True
            ):
                if gradient is not None:
                    beside = (slope * v[:, None, :]).sum(2) - v * (slope * c).sum(2)
                    gradient.index_add_(0, block, 2 * sign * beside)
                    across = torch.einsum("jik,ji,jk->ik", slope, v, v)
                    gradient.addcmul_(across, d, value=-sign)
        ctx.gradients = gradients
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        teacher, student = (None if g is None else gradient * g for g in ctx.gradients)
        return teacher, student, None


def _cosines(distances: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """psi_A at `anchors` (J,), as (J, N, N) and the inverse distances to them, (J, N).

    Both are 0 where an image is no distance away from the anchor.
    """
    beside = distances[anchors]
    inverse = torch.where(beside == 0, 0.0, 1 / beside)
    squares = beside.square()
    cosines = squares[:, :, None] + squares[:, None, :] - distances.square()
    cosines *= inverse[:, :, None]
    cosines *= inverse[:, None, :] / 2
    return cosines, inverse
