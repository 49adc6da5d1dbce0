"""Exporting a network: files, each run on real images and held to the network that was evaluated,
and a card that says so. Nothing is left behind of an export that fails.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasaug.console import emit_json, emit_table, say, show_log_messages
from nasaug.export import (
    FORMATS,
    INT8,
    Check,
    Format,
    Model,
    Runner,
    compare,
    fold,
    logits_of,
    open_format,
)
from nasaug.pipelines.export_card import (
    CHECKED,
    QUANTISED,
    TIMED,
    card_of,
    checks_table,
    int8_table,
    latency_table,
    markdown_of,
    where_of,
)
from nasaug.pipelines.export_folder import CARD, CARD_TEXT, new_folder
from nasaug.pipelines.export_int8 import Quantisation, hits, judged_on, quantised
from nasaug.pipelines.export_latency import measured
from nasaug.pipelines.export_qat import FineTuning, check_can_be_tuned, fine_tuned
from nasaug.pipelines.export_source import Source, Wanted, open_source
from nasaug.supernet import check_fit
from nasaug.training import evaluation_batches, keep_caches, write_atomically, write_json

SAME_TOP1 = 0.005


class Refused(Exception):
    """What was written is not good enough to ship."""


@dataclass(frozen=True)
class Order:
    """What `nasaug export` was asked for; `out` None is the folder `export` beside the weights.
    `images` of the test part are what files are checked on; `threads` None: no latencies."""

    wanted: Wanted
    formats: tuple[str, ...] = ("torch",)
    out: str | None = None
    int8: Quantisation | None = None
    images: int = 256
    threads: int | None = None
    tuning: FineTuning | None = None
    max_memory: int | None = None
    max_flash: int | None = None

    @property
    def command(self) -> str:
        """The command that asks for the same again."""
        w, words = self.wanted, ["nasaug", "export", self.wanted.place]
        for name in dict.fromkeys(self.formats):
            words += ["--format", name]
        given: dict[str, object] = {"--out": self.out, "--data": w.data, "--data-dir": w.data_dir}
        given |= {"--resolution": w.resolution, "--images": self.images}
        if self.int8 is not None:
            words += ["--int8"]
            given |= {"--calibration": self.int8.images, "--calibrate": self.int8.method}
            given |= {"--max-drop": self.int8.max_drop}
        if self.tuning is not None:
            words += ["--qat-netaug"] if self.tuning.helpers else []
            given |= {"--qat-epochs": self.tuning.epochs, "--qat-lr": self.tuning.lr}
        given |= {"--max-memory": self.max_memory, "--max-flash": self.max_flash}
        if self.threads is not None:
            words += ["--latency"]
            given |= {"--threads": self.threads}
        words += ["--download"] if w.download else []
        words += ["--force"] if w.force else []
        pairs = ((key, str(value)) for key, value in given.items() if value is not None)
        return shlex.join([*words, *(word for pair in pairs for word in pair)])


@dataclass
class Made:
    """What an export came to so far: by file, without its ending. `before`: which test images the
    evaluated network told right."""

    checks: dict[str, Check] = field(default_factory=dict)
    int8: list[dict[str, Any]] = field(default_factory=list)
    before: Tensor | None = None
    runners: dict[str, Runner] = field(default_factory=dict)


def run_export(order: Order, as_json: bool) -> None:
    """Where int8 loses more than is allowed and there is an `order.tuning`, what that makes of the
    network is exported in its place, float version and checks included.

    Raises: ValueError for bad input; Refused for a network that does not fit, files that do not
        compute what it does, and int8 versions that lose more than is allowed; OSError.
    """
    show_log_messages()
    keep_caches()
    formats = _formats(order)
    source = open_source(order.wanted)
    _check_limits(order, source)
    if order.tuning is not None:
        check_can_be_tuned(source, order.wanted)
    out = source.folder / "export" if order.out is None else Path(order.out)
    with new_folder(out, order.wanted.force) as folder:
        model, made = _written(order, source, formats, folder)
        lossy, evaluated = [one for one in made.int8 if not one["passed"]], None
        if lossy and order.tuning is not None:
            for path in folder.iterdir():
                path.unlink()
            evaluated, source = source, fine_tuned(source, order.wanted, order.tuning)
            # What int8 may lose is of the network that was asked for, not of what became of it.
            model, made = _written(order, source, formats, folder, made.before)
            lossy = [one for one in made.int8 if not one["passed"]]
        if lossy:
            raise Refused(_too_lossy(lossy[0], order))
        latency = None
        if order.threads is not None:
            latency = measured(made.runners, _shown(source, 1)[0][:1], order.threads)
        card = card_of(
            source, model, formats, folder, made.checks, made.int8, latency, order.command
        )
        if evaluated is not None:
            card["training"]["fine_tuned_from"] = evaluated.origin
        write_json(folder / CARD, card)
        write_atomically(folder / CARD_TEXT, markdown_of(card))
    if as_json:
        emit_json({**card, "run_dir": str(source.folder), "out": str(out)})
    else:
        _show(card, out)


def _check_limits(order: Order, source: Source) -> None:
    """Raises: Refused for a network that needs more than the device has, as int8 where it is."""
    bits = 32 if order.int8 is None else 8
    arch = replace(source.net.arch, resolution=source.view.resolution)
    fit = check_fit(arch, order.max_memory, order.max_flash, bits)
    if not fit.fits:
        raise Refused(
            f"{arch.name} does not fit in {bits} bits: {fit}; nothing was written (nasaug memory "
            "says what needs it, row by row)"
        )


def _formats(order: Order) -> dict[str, Format]:
    """Raises: ValueError for a format that there is not or that has no int8 version."""
    formats = {name: open_format(name) for name in order.formats}
    if order.int8 is not None and not any(form.quantise for form in formats.values()):
        able = [f"--format {name}" for name, form in FORMATS.items() if form.quantise]
        raise ValueError(
            f"--int8 has no meaning for the format {', '.join(formats)}; add {' or '.join(able)}"
        )
    return formats


def _written(
    order: Order,
    source: Source,
    formats: Mapping[str, Format],
    folder: Path,
    before: Tensor | None = None,
) -> tuple[Model, Made]:
    """All files, checked; `before` are the hits that int8 is compared with, None those of `source`.

    Raises: Refused for a file that differs too much.
    """
    folded = fold(source.net, source.view.resolution)
    model = Model.of(folded, source.described())
    path, made = folder / model.described.name, Made(before=before)
    shown = _shown(source, order.images)
    reference = logits_of(source.net, shown)
    if not reference.isfinite().all():
        raise ValueError(
            f"{source.folder}: the network's own logits are no finite numbers; its training "
            "diverged: train again, with a lower train.lr"
        )
    threads = order.threads or torch.get_num_threads()
    for name, form in formats.items():
        form.write(model, path)
        label = path.name + form.endings[0]
        made.runners[label] = run = form.open(path, threads)
        check = compare(logits_of(run, shown), reference, form.tolerance)
        if not check.passed:
            raise Refused(_too_far(name, check))
        made.checks[label] = check
        if order.int8 is None or form.quantise is None:
            continue
        if made.before is None:
            made.before = hits(source.net, judged_on(source), "as evaluated")
            _check_accuracy(source, order.wanted, float(made.before.mean()))
        made.int8.append(quantised(source, model, name, form, path, order.int8, made.before))
        goal = path.with_name(path.name + INT8)
        label = goal.name + form.endings[0]
        made.runners[label] = run = form.open(goal, threads)
        made.checks[label] = check = compare(logits_of(run, shown), reference, None)
        if not check.passed:
            raise Refused(_too_far(f"{name} int8", check))
    return model, made


def _check_accuracy(source: Source, wanted: Wanted, top1: float) -> None:
    """Raises: ValueError for weights that are not those that the run's result tells of."""
    told = source.result.get("top1")
    as_judged = wanted.data is None and wanted.data_dir is None and wanted.resolution is None
    # Another machine may tell a few images otherwise.
    if as_judged and told is not None and abs(top1 - told) > SAME_TOP1:
        raise ValueError(
            f"{source.folder} has weights of {100 * top1:.2f} % top-1, but its result.json tells "
            f"of {100 * told:.2f} %: they are not those that were judged; train again, or export "
            "the weights file by itself"
        )


def _shown(source: Source, count: int) -> list[Tensor]:
    """A fixed random subset of the test images, as the network reads them."""
    part = source.data.test
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(0))
    chosen = part.subset(order[:count].sort().values)
    return [images for images, _ in evaluation_batches(source.data, chosen, source.view)]


def _too_far(name: str, check: Check) -> str:
    most = "a finite number" if check.tolerance is None else f"at most {check.tolerance:.0e}"
    return (
        f"{name}: logits differ from the evaluated network's by {check.difference:.1e} of their "
        f"standard deviation over {check.images} images, but {most} is allowed; nothing was "
        "written. This is a fault of the export or of the format's packages: please report it"
    )


def _too_lossy(one: Mapping[str, Any], order: Order) -> str:
    assert order.int8 is not None
    tune = "fine-tune with rounded numbers (--qat-epochs 3)"
    if order.tuning is not None:
        tune = "fine-tune longer, or at another rate (--qat-epochs, --qat-lr)"
    return (
        f"{one['format']}: int8 has {100 * one['top1_after']:.2f} % top-1 in place of "
        f"{100 * one['top1_before']:.2f} %, and --max-drop allows {order.int8.max_drop:g} points; "
        "nothing was written. Try another --calibrate or more --calibration images, "
        f"{tune}, or raise --max-drop"
    )


def _show(card: Mapping[str, Any], out: Path) -> None:
    size = card["input"]["resolution"]
    title = f"{card['target']} at {size} x {size}, compared on {card['checked_on']}"
    emit_table(title, CHECKED, checks_table(card))
    if card["int8"]:
        emit_table("\nint8", QUANTISED, int8_table(card))
    if card["latency"]:
        emit_table(f"\n{where_of(card)}", TIMED, latency_table(card))
    emit_table(
        "\nFiles",
        ("file", "bytes", "sha256"),
        [[one["file"], f"{one['bytes']:,}", one["sha256"][:16]] for one in card["files"]],
    )
    say(f"exported to {out}; what it is and how it was checked: {out / CARD_TEXT}")
