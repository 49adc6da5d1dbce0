"""One of the workers that test_gathering.py starts as torchrun would.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT=... python gathering_worker.py FOLDER

Each back-propagates the relational loss of the gathered embeddings of its share of the images, and
writes FOLDER/RANK.safetensors: the loss, the gathered embeddings, the averaged gradients.
"""

from __future__ import annotations

import sys
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor

from nasaug.training import gather, join_workers, relational_loss

IMAGES, IN, WIDTHS = 8, 6, (5, 3)


def start() -> tuple[Tensor, list[Tensor]]:
    """Images (IMAGES, IN), and the weights of teacher and student."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, IN, generator=generator, dtype=torch.float64)
    weights = [torch.randn(IN, w, generator=generator, dtype=torch.float64) for w in WIDTHS]
    return images, [weight.requires_grad_() for weight in weights]


def embed(images: Tensor, weight: Tensor) -> Tensor:
    return (images @ weight).tanh()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    group = join_workers(torch.device("cpu"))
    images, weights = start()
    own = images.chunk(group.size)[group.rank]
    # One of the two is not contiguous, as a slice of a wider embedding would be.
    teacher = gather(embed(own, weights[0]).t().contiguous().t(), group)
    student = gather(embed(own, weights[1]), group)
    half = gather(embed(own, weights[1]).bfloat16(), group)
    assert half.dtype == torch.float32 and half.shape == student.shape
    loss = relational_loss(teacher, student)
    loss.backward()
    found = {"loss": loss.detach(), "teacher": teacher.detach(), "student": student.detach()}
    for name, weight in zip(("teacher", "student"), weights, strict=True):
        assert weight.grad is not None
        dist.all_reduce(weight.grad)
        found[f"gradient.{name}"] = weight.grad / group.size
    safetensors.torch.save_file(found, folder / f"{group.rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
