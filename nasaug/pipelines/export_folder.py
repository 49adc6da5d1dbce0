"""The folder of an export: whole or not at all, and in place of an earlier export only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nasaug.training import read_json_object

CARD, CARD_TEXT = "card.json", "card.md"


@contextmanager
def new_folder(out: Path, force: bool) -> Iterator[Path]:
    """An empty folder beside `out`, which becomes `out` when all went well, and is gone otherwise.

    Raises: ValueError for a path that exists, unless it is an empty folder, or with `force` an
        export; OSError.
    """
    out = Path(out.resolve())
    _check_place(out, force)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as beside:
        made, before = Path(beside) / "made", Path(beside) / "before"
        made.mkdir()
        yield made
        if not out.exists():
            made.rename(out)
            return
        out.rename(before)
        try:
            made.rename(out)
        except OSError:
            before.rename(out)
            raise


def _check_place(out: Path, force: bool) -> None:
    if not out.parent.is_dir():
        raise ValueError(f"--out {out}: there is no folder {out.parent}; make it first")
    if not out.exists():
        return
    if not out.is_dir():
        raise ValueError(f"--out must be a folder, but {out} is a file")
    there = {path.name for path in out.iterdir()}
    if not there:
        return
    if not force:
        raise ValueError(f"{out} exists; add --force to replace it, or choose another --out")
    known = {CARD, CARD_TEXT, *_listed(out)} if CARD in there else set()
    if foreign := sorted(there - known):
        raise ValueError(
            f"--force replaces an export and nothing else, but {out / foreign[0]} is no part of "
            "one; choose another --out"
        )


def _listed(out: Path) -> list[str]:
    """The names of the files that an export's card tells of."""
    files = read_json_object(out / CARD).get("files")
    entries = files if isinstance(files, list) else []
    return [str(entry.get("file")) for entry in entries if isinstance(entry, dict)]
