"""What training images go through beyond shifts and flips, by torchvision's transforms.

RandAugment (Cubuk et al., NeurIPS 2020, arXiv 1909.13719) and AutoAugment with its ImageNet policy
(Cubuk et al., CVPR 2019, arXiv 1805.09501) take an image by itself. MixUp (Zhang et al., ICLR 2018,
arXiv 1710.09412) and CutMix (Yun et al., ICCV 2019, arXiv 1905.04899) take a batch: image i becomes
lambda x_i + (1 - lambda) x_(i-1), or x_i with a rectangle of x_(i-1) that covers 1 - lambda of it,
and its label lambda y_i + (1 - lambda) y_(i-1); lambda ~ Beta(alpha, alpha), drawn once a batch.

torchvision draws from torch's own generator. Everything here seeds it, and puts it back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nasaug.training.views import View

Policy = Callable[[Any], Any]


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """Inside, what torchvision draws follows from `seed`; torch's generator is as before after it.

    `torch.manual_seed` would reach the generators of GPUs too, which nothing puts back.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def image_policy(view: View) -> Policy | None:
    """The policy that `view` asks for: a PIL image, or a uint8 tensor (C, H, W), to another."""
    if not (view.rand_augment or view.auto_augment):
        return None
    from torchvision.transforms import v2

    policy: Policy = v2.RandAugment() if view.rand_augment else v2.AutoAugment()
    return policy


def by_itself(policy: Policy, images: Tensor, seeds: Iterable[int]) -> Tensor:
    """Each image of uint8 (N, C, H, W) through `policy`, with a seed of its own.

    On the CPU: a policy is a handful of tiny operations an image, which a GPU is slower at.
    """
    changed = []
    for image, seed in zip(images.cpu(), seeds, strict=True):
        with drawing(seed):
            changed.append(policy(image))
    return torch.stack(changed).to(images.device)


class Mixing:
    """MixUp, CutMix, one of the two at random a batch, or nothing; as `view` asks.

    An image is mixed with the one before it in the global batch. Batches must therefore begin with
    `leading` images more, the neighbours of their first, which are dropped again: so the workers of
    a group see together what one worker would.
    """

    def __init__(self, view: View, classes: int, augments: bool) -> None:
        self._mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
        if augments and view.mixes:
            from torchvision.transforms import v2

            kinds = ((v2.MixUp, view.mixup), (v2.CutMix, view.cutmix))
            mixes = [kind(alpha=a, num_classes=classes) for kind, a in kinds if a > 0]
            self._mix = v2.RandomChoice(mixes)

    @property
    def leading(self) -> int:
        return 0 if self._mix is None else 1

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """(images, labels) to images of the same layout and labels (N, classes) float32."""
        if self._mix is None:
            return images, labels
        with drawing(seed):
            mixed, soft = self._mix(images, labels)
        return mixed[self.leading :], soft[self.leading :]
