"""Scenes composed of single items on textured ground: detection data that is made in seconds.

Items of a data set of grey pictures on black (Fashion-MNIST) are tinted, scaled and put at random
places, later ones over earlier ones. What is drawn is known to the pixel, so that boxes are exact:
each is tight around the pixels of its item that are left to be seen.

An item is not put where it would leave less than 30 % of another's pixels to be seen: a place that
would is drawn again, and after `PLACES` of them the item is left out. So no object is heavily
hidden, and the two formats, of which only VOC can call an object difficult, say the same.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasaug.training import ImageArray

Pixels = NDArray[np.uint8]

# An item's pixels are those above this, of 255: fainter ones are noise of the original photographs.
FAINTEST = 24
PLACES = 20


@dataclass(frozen=True)
class SceneStyle:
    """What scenes look like.

    `sizes` are the smallest and the largest width and height in pixels, `items` the fewest and the
    most items put down, `scales` the smallest and the largest longer side of an item as a share of
    the scene's shorter side. `hidden` is the share of an item that others may cover. Without
    `colour` scenes are grey.

    Raises: ValueError for a value outside its range.
    """

    sizes: tuple[int, int] = (128, 128)
    items: tuple[int, int] = (1, 6)
    scales: tuple[float, float] = (0.2, 0.6)
    hidden: float = 0.7
    colour: bool = True

    def __post_init__(self) -> None:
        rules = (
            ("sizes", self.sizes, 32, 4096),
            ("items", self.items, 1, 100),
            ("scales", self.scales, 0.1, 1.0),
        )
        for name, (low, high), least, most in rules:
            if not least <= low <= high <= most:
                raise ValueError(
                    f"{name} must be a smallest and a largest value between {least} and {most}, "
                    f"but got {low} and {high}"
                )
        if not 0 <= self.hidden < 1:
            raise ValueError(
                f"hidden must be a share of at least 0, below 1, but got {self.hidden}"
            )


@dataclass(frozen=True, eq=False)
class Scene:
    """A scene of n items: pixels uint8 (H, W, 3), or (H, W) if grey; boxes (x0, y0, x1, y1) as
    edges, labels and areas (the pixels seen). `owners` int (H, W) tells which item a pixel shows,
    -1 being the ground; `items` are the indices of the items that were drawn."""

    pixels: Pixels
    owners: NDArray[np.int64]
    boxes: tuple[tuple[int, int, int, int], ...]
    labels: tuple[int, ...]
    areas: tuple[int, ...]
    items: tuple[int, ...]


def compose(source: ImageArray, style: SceneStyle, rng: random.Random) -> Scene:
    """A scene of items of `source`, whose pictures are grey on black.

    Raises: ValueError for a source of pictures in colour.
    """
    if source.images.shape[1] != 1:
        raise ValueError(
            "scenes are composed of grey pictures on black, but these have "
            f"{source.images.shape[1]} channels; take fashion-mnist or fashion-mnist-mini"
        )
    width, height = (rng.randint(*style.sizes) for _ in range(2))
    canvas = _ground(width, height, style.colour, rng)
    owners = np.full((height, width), -1, dtype=np.int64)
    drawn: list[int] = []
    items: list[int] = []
    for _ in range(rng.randint(*style.items)):
        item = rng.randrange(len(source))
        cut = _scaled(source.images[item, 0].numpy(), min(width, height), style, rng)
        place = cut is not None and _place(owners, cut > FAINTEST, drawn, style.hidden, rng)
        if cut is None or not place:
            continue
        shape = cut > FAINTEST
        x, y = place
        window = np.s_[y : y + shape.shape[0], x : x + shape.shape[1]]
        owners[window][shape] = len(items)
        canvas[window][shape] = (cut[shape][:, None] * _tint(style.colour, rng)).astype(np.uint8)
        drawn.append(int(shape.sum()))
        items.append(item)
    seen = [owners == number for number in range(len(items))]
    labels = tuple(int(source.labels[item]) for item in items)
    pixels = canvas if style.colour else canvas[:, :, 0]
    boxes = tuple(_tight(mask) for mask in seen)
    return Scene(pixels, owners, boxes, labels, tuple(int(m.sum()) for m in seen), tuple(items))


def _scaled(item: Pixels, shorter: int, style: SceneStyle, rng: random.Random) -> Pixels | None:
    """The item alone, without the black around it, at a random size and maybe mirrored."""
    if not (item > FAINTEST).any():
        return None
    x0, y0, x1, y1 = _tight(item > FAINTEST)
    cut = item[y0:y1, x0:x1]
    if rng.random() < 0.5:
        cut = cut[:, ::-1]
    ratio = rng.uniform(*style.scales) * shorter / max(cut.shape)
    size = [max(2, round(side * ratio)) for side in reversed(cut.shape)]
    scaled = _resized(cut, (size[0], size[1]))
    shape = scaled > FAINTEST
    if not shape.any():
        return None
    x0, y0, x1, y1 = _tight(shape)
    return scaled[y0:y1, x0:x1]


def _place(
    owners: NDArray[np.int64],
    shape: NDArray[np.bool_],
    drawn: Sequence[int],
    hidden: float,
    rng: random.Random,
) -> tuple[int, int] | None:
    """Where an item of that shape leaves enough of all others to be seen, or None."""
    height, width = shape.shape
    seen = np.bincount(owners.ravel() + 1, minlength=len(drawn) + 1)[1:]
    needed = (1 - hidden) * np.array(drawn, dtype=float)
    for _ in range(PLACES):
        x = rng.randint(0, owners.shape[1] - width)
        y = rng.randint(0, owners.shape[0] - height)
        below = owners[y : y + height, x : x + width][shape]
        covered = np.bincount(below + 1, minlength=len(drawn) + 1)[1:]
        if (seen - covered >= needed).all():
            return x, y
    return None


def _tight(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The edges (x0, y0, x1, y1) of what is set."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _tint(colour: bool, rng: random.Random) -> NDArray[np.float32]:
    channels = [rng.uniform(0.45, 1.0) for _ in range(3)]
    return np.array(channels if colour else [channels[0]] * 3, dtype=np.float32)


def _ground(width: int, height: int, colour: bool, rng: random.Random) -> Pixels:
    """Two colours that run into each other in patches, and grain: uint8 (height, width, 3)."""
    first, second = (
        np.array([rng.randint(20, 170) for _ in range(3 if colour else 1)], dtype=np.float32)
        for _ in range(2)
    )
    patches = sum(
        share * _noise(width, height, cells, rng)
        for share, cells in ((0.6, rng.randint(2, 5)), (0.4, rng.randint(8, 16)))
    )
    grain = rng.uniform(10, 70) * (_noise(width, height, rng.choice((32, 64, 128)), rng) - 0.5)
    mixed = first + (second - first) * np.asarray(patches)[:, :, None] + grain[:, :, None]
    return np.broadcast_to(mixed.clip(0, 255), (height, width, 3)).astype(np.uint8)


def _noise(width: int, height: int, cells: int, rng: random.Random) -> NDArray[np.float32]:
    """Smooth noise in 0..1: random numbers in a grid of cells x cells, scaled up."""
    # Bytes of Python's own generator: the same numbers with any version of numpy.
    grid = np.frombuffer(rng.randbytes(cells * cells), dtype=np.uint8).reshape(cells, cells)
    return _resized(grid, (width, height)).astype(np.float32) / np.float32(255)


def _resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Grey pixels (h, w) to `size` (width, height), bilinear."""
    from PIL import Image

    picture: Any = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))
