"""Reading IDX files, the format of MNIST and Fashion-MNIST, gzipped or plain."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of unsigned bytes in an IDX file. Raises: ValueError naming a damaged file."""
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dims = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{dims}I", data, 4)
    except (EOFError, OSError, struct.error, zlib.error) as error:
        raise ValueError(f"{path} is not a readable IDX file ({error})") from None
    start = 4 + 4 * dims
    if zeros != 0 or kind != 8 or len(data) - start != math.prod(shape):
        raise ValueError(f"{path} is not an IDX file of unsigned bytes, or it is cut off")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)
