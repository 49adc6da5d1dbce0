"""Unpacking: whole or not at all, and nowhere else."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from nasaug.training.archives import unpack


def _pack(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize(("ending", "mode"), [("tgz", "w:gz"), ("tar.gz", "w:gz"), ("tar", "w")])
def test_what_is_packed_comes_out(ending: str, mode: str, tmp_path: Path) -> None:
    archive = _pack(tmp_path / f"x.{ending}", {"a/b/c.txt": b"one", "d.txt": b"two"}, mode)
    unpack(archive, tmp_path / "new" / "folder")
    found = {
        str(path.relative_to(tmp_path / "new" / "folder")): path.read_bytes()
        for path in (tmp_path / "new").rglob("*.txt")
    }
    assert found == {"a/b/c.txt": b"one", "d.txt": b"two"}


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("mine")
    unpack(_pack(tmp_path / "x.tgz", {"a/b.txt": b"one", "c.txt": b"two"}), tmp_path)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["mine.txt"]
    assert (tmp_path / "c.txt").read_bytes() == b"two"


@pytest.mark.parametrize("name", ["../out.txt", "a/../../out.txt"])
def test_nothing_is_written_elsewhere(name: str, tmp_path: Path) -> None:
    archive = _pack(tmp_path / "x.tgz", {"a.txt": b"fine", name: b"not"})
    with pytest.raises(ValueError, match=r"x\.tgz cannot be unpacked .*outside"):
        unpack(archive, tmp_path / "inner")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["inner", "x.tgz"]


@pytest.mark.parametrize("keep", [0, 10, 60, -4])
def test_a_damaged_archive_leaves_nothing(keep: int, tmp_path: Path) -> None:
    files = {f"{n}.bin": bytes(range(256)) * 40 for n in range(20)}
    archive = _pack(tmp_path / "x.tgz", files)
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"x\.tgz cannot be unpacked .*download it again"):
        unpack(archive, tmp_path / "inner")
    assert list((tmp_path / "inner").iterdir()) == []


def test_an_archive_with_a_changed_byte_is_refused(tmp_path: Path) -> None:
    archive = _pack(tmp_path / "x.tgz", {"a.bin": bytes(range(256)) * 40})
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1  # of the checksum
    archive.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.tgz cannot be unpacked"):
        unpack(archive, tmp_path / "inner")
