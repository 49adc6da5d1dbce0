"""Image files by a table: `csv:FILE`, with the columns path, label and, if you like, split.

    path,label,split
    images/0001.jpg,cat,train
    images/0002.jpg,dog,test

Paths are relative to the table. The classes are the labels, in alphabetical order, or by their
value where all of them are whole numbers. `split` is train, val or test.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from nasaug.training.folders import ImagePaths
from nasaug.training.parts import Parts

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Row:
    line: int
    path: Path
    label: str
    split: str
    has_split: bool


def read_csv_images(table: Path) -> Parts:
    """The parts that a table names; None for the others, which are held out of the training part.

    A table with splits needs rows to test on: where it has either of val and test, that is the
    test part, as in a folder of images.

    Raises: ValueError naming the table and the line for what is missing, unknown or there twice,
        and for a file that is not there.
    """
    rows = list(_rows(table))
    first: dict[Path, _Row] = {}
    for row in rows:
        seen = first.setdefault(row.path, row)
        if seen is not row:
            raise ValueError(
                f"{table}, line {row.line}: {row.path} is in line {seen.line} already; an image "
                "has one label and is in one part"
            )
        if not row.path.is_file():
            raise ValueError(
                f"{table}, line {row.line}: {row.path} is not there; paths are relative to the "
                "table's folder"
            )
    by_split = {name: [row for row in rows if row.split == name] for name in SPLITS}
    training = by_split["train"]
    if not training:
        raise ValueError(f"{table} has no rows to train on (split train)")
    classes = _in_order({row.label for row in training})
    parts = {
        name: _part(table, members, classes) if members else None
        for name, members in by_split.items()
    }
    train, validation, test = (parts[name] for name in SPLITS)
    assert train is not None
    if test is None:
        validation, test = None, validation
    if test is None and any(row.has_split for row in rows):
        raise ValueError(
            f"{table} says which rows are for training, and has none of val or test; add some, or "
            "leave the column split out to have images held out"
        )
    return Parts(train, test, classes, validation)


def _rows(table: Path) -> Iterator[_Row]:
    try:
        # Spreadsheets begin a table with a byte-order mark.
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            if not {"path", "label"} <= set(columns):
                raise ValueError(
                    f"{table}, line 1: a table of images needs the columns path,label (and may "
                    f"have split), with commas between them, but has {','.join(columns) or 'none'}"
                )
            reader.fieldnames = columns
            for values in reader:
                yield _row(table, reader.line_num, values, "split" in columns)
    except FileNotFoundError:
        raise ValueError(
            f"{table} does not exist; csv:FILE names a table with the columns path,label"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} is not a readable CSV file: {error}") from None


def _row(table: Path, line: int, values: dict[str, str | None], has_split: bool) -> _Row:
    where = f"{table}, line {line}"
    if None in values or None in values.values():
        raise ValueError(
            f"{where}: it has another number of fields than the first line; put names with commas "
            'into quotes ("...")'
        )
    given = {name: (value or "").strip() for name, value in values.items()}
    for name in ("path", "label"):
        if not given[name]:
            raise ValueError(f"{where}: {name} is empty")
    split = given["split"] if has_split else "train"
    if split not in SPLITS:
        raise ValueError(f"{where}: split must be {', '.join(SPLITS)}, but is {split!r}")
    return _Row(line, table.parent / given["path"], given["label"], split, has_split)


def _in_order(labels: set[str]) -> tuple[str, ...]:
    numbers = all(label.isdecimal() and label.isascii() for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label) if numbers else 0, label)))


def _part(table: Path, rows: list[_Row], classes: tuple[str, ...]) -> ImagePaths:
    label_of = {name: label for label, name in enumerate(classes)}
    for row in rows:
        if row.label not in label_of:
            raise ValueError(
                f"{table}, line {row.line}: no image to train on has the label {row.label!r}"
            )
    labels = torch.tensor([label_of[row.label] for row in rows])
    return ImagePaths(tuple(str(row.path) for row in rows), labels)
