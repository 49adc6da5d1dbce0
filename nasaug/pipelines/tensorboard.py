"""A run's metrics for TensorBoard, where asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nasaug.training import RunFolder


@contextmanager
def mirror_metrics(run: RunFolder, wanted: bool) -> Iterator[None]:
    """With `wanted`, what `run` logs inside the block also goes to `tensorboard/` in its folder.

    Raises: ValueError if TensorBoard is not installed.
    """
    if not wanted or not run.writes:
        yield
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "tensorboard: true needs TensorBoard: pip install 'nasaug[tensorboard]'"
        ) from None
    with SummaryWriter(str(run.path / "tensorboard")) as writer:
        run.mirror = lambda step, values: [
            writer.add_scalar(name, value, step) for name, value in values.items()
        ]
        try:
            yield
        finally:
            run.mirror = None
