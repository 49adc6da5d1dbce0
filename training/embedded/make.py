"""Makes `fashion_mnist_mini.npz` from the IDX files of Debian's package dataset-fashion-mnist.

    python training/embedded/make.py /usr/share/datasets/fashion-mnist

The first 900 training and 200 test images of each class, in the order of the original files.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np

from nasaug.training.idx import read_idx

PER_CLASS = {"train": 900, "t10k": 200}


def main(folder: Path, output: Path) -> None:
    arrays = {}
    for split, count in PER_CLASS.items():
        images = read_idx(folder / f"{split}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{split}-labels-idx1-ubyte.gz")
        chosen = np.sort(np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(10)]))
        name = "train" if split == "train" else "test"
        arrays[f"{name}_images"], arrays[f"{name}_labels"] = images[chosen], labels[chosen]
    # LZMA inside the .npz (a plain zip): a fifth smaller than numpy's own deflate.
    with zipfile.ZipFile(output, "w", zipfile.ZIP_LZMA) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(2017, 8, 25, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_LZMA
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).with_name("fashion_mnist_mini.npz"))
