"""The pixels that a picture's boxes belong to.

A photograph may be stored on its side, with a note (EXIF) of how to turn it. pycocotools' and
torchvision's users get the stored pixels, and COCO's and VOC's boxes are on those; tools that
people draw boxes with mostly show the turned picture, and write its size beside the boxes. So the
annotated size decides: where it is that of the turned picture and not of the stored one, the boxes
are on the turned picture. Where both have one size (turned by 180 degrees, mirrored, square) the
boxes are taken to be on the stored pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nasaug.training import UnreadablePicture, open_picture
from nasaug.training.pictures import ORIENTATION, UPRIGHT

PNG_NOTES = {"exif", "Raw profile type exif"}
ON_ITS_SIDE = ("TRANSPOSE", "ROTATE_270", "TRANSVERSE", "ROTATE_90")


def read_picture(path: str | Path, width: int, height: int) -> Tensor:
    """The pixels of `width` x `height` that boxes are on: uint8 (3, height, width).

    Raises: UnreadablePicture (a ValueError naming the file) for a missing or damaged file, and for
        one that has another size.
    """
    fault = picture_fault(path, width, height)
    if fault is not None:
        raise UnreadablePicture(path, fault)
    stored, _ = _header(path)
    picture = open_picture(path, upright=stored != (width, height))
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def picture_fault(path: str | Path, width: int, height: int) -> str | None:
    """What is wrong with a picture that is annotated as `width` x `height`, by its header alone."""
    try:
        stored, turn = _header(path)
    except UnreadablePicture as error:
        return f"its picture cannot be read: {error.reason}"
    if (width, height) == stored or (turn in ON_ITS_SIDE and (height, width) == stored):
        return None
    return (
        f"its picture {path} must have the annotated size, {width} x {height} pixels, but has "
        f"{stored[0]} x {stored[1]}"
    )


def _header(path: str | Path) -> tuple[tuple[int, int], str | None]:
    """The stored size (width, height), and how EXIF has the picture turned, if at all."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            # A PNG file's note lies in front; looking behind the pixels would decode them.
            noted = image.format != "PNG" or not PNG_NOTES.isdisjoint(image.info)
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1)) if noted else None
            return image.size, turn
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadablePicture(path, str(error)) from None
