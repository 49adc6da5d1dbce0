"""Any picture file as 8-bit colour: what a network for classes, or for boxes, is shown.

Pillow's own `convert("RGB")` clips 16-bit grey to white, uncovers the colours that lie hidden
under transparent pixels, and leaves a photograph on its side as the camera held it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

# EXIF's Orientation, and what Pillow calls the way back (Exif 2.3, tag 0x0112); 1 is upright.
ORIENTATION = 0x0112
UPRIGHT = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
    6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
WHITE = (255, 255, 255, 255)


class UnreadablePicture(ValueError):
    """A file that is missing, damaged or of pixels without a known range; `reason` says which."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"image {path} cannot be read: {reason}")
        self.path, self.reason = str(path), reason

    def __reduce__(self) -> tuple[type[UnreadablePicture], tuple[str, str]]:
        """It may come from a decoding process."""
        return UnreadablePicture, (self.path, self.reason)


def open_picture(path: str | Path, upright: bool = True) -> Image:
    """The picture in a file, in Pillow's mode RGB, upright; of several frames the first.

    - Turned as its EXIF orientation says, or not where `upright` is False. EXIF that is damaged
      elsewhere does no harm.
    - Grey, palette, CMYK and YCbCr become RGB as Pillow converts them.
    - 16 bits become 8 by scaling, round(v / 257), so that black stays 0 and white 255.
    - What is transparent shows white behind it, as a page does.

    Raises: UnreadablePicture for a missing, damaged or truncated file, for pixels whose range
        is not known (floating point, or whole numbers of 32 bits outside of 16), and for more
        pixels than Pillow takes to be safe.
    """
    from PIL import Image

    try:
        with Image.open(path) as opened:
            opened.load()
            turn = UPRIGHT.get(opened.getexif().get(ORIENTATION, 1))
            colour = _in_colour(opened)
            return (
                colour if turn is None or not upright else colour.transpose(Image.Transpose[turn])
            )
    except Exception as error:  # a damaged file can fail anywhere inside Pillow
        raise UnreadablePicture(path, str(error)) from None


def _in_colour(image: Image) -> Image:
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        return _from_numbers(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    page = Image.new("RGBA", image.size, WHITE)
    return Image.alpha_composite(page, image.convert("RGBA")).convert("RGB")


def _from_numbers(image: Image) -> Image:
    """Grey of 16 bits as 8. Raises: ValueError for numbers that are not of 16 bits."""
    from PIL import Image

    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 65_535:
        raise ValueError(
            f"its pixels ({image.mode}) reach from {values.min()} to {values.max()}, and which of "
            "them is white is not known; save it with 8 or 16 bits a channel"
        )
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    key = image.info.get("transparency")
    if isinstance(key, int):  # PNG: pixels of this value are transparent
        grey[values == key] = 255
    return Image.fromarray(grey)
