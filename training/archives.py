"""Unpacking archives of images: whole or not at all, and never outside of the folder."""

from __future__ import annotations

import gzip
import tarfile
import tempfile
import zlib
from pathlib import Path


def unpack(archive: Path, folder: Path) -> None:
    """Put what a tar archive (gzipped or not) holds into `folder`, which is made if need be.

    What is there already stays. Nothing is left behind of an archive that breaks off.

    Raises: ValueError naming an archive that is damaged or would write elsewhere; OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacking-") as beside:
        try:
            with tarfile.open(archive) as file:
                file.extractall(beside, filter="data")
                # To the end, where gzip's checksum is.
                while file.fileobj is not None and file.fileobj.read(1 << 20):
                    pass
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            reason = " ".join(str(error).split())  # tarfile says some in several lines
            raise ValueError(
                f"{archive} cannot be unpacked ({reason}); download it again"
            ) from None
        for entry in sorted(Path(beside).iterdir()):
            goal = folder / entry.name
            if not goal.exists():
                entry.rename(goal)
