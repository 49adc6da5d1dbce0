"""On what a contestant's compute went, and how much of it on what its result does not have.

Unused are the MACs on weights that the resulting network is without: those of sub-networks beyond
what they share with it, all of a supernet whose weights nobody inherits, and all that judging
candidates takes. It is the argument against searching down, as a number; and NetAug's larger
networks count alike. A run's passes are gone through again for it (see `rehearsals.py`), and must
come to the MACs that the run recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from nasaug.comparing.cells import Cell
from nasaug.comparing.store import Store
from nasaug.comparing.versions import Code
from nasaug.config import SearchConfig
from nasaug.contrasting.plan import Entry
from nasaug.contrasting.rehearsals import Part, macs_of, supernet_parts, training_part
from nasaug.contrasting.runs import Runs
from nasaug.pipelines.inside import augmentation_for
from nasaug.supernet import Architecture, SearchSpace, macs_at, shared_macs
from nasaug.train_config import TrainConfig
from nasaug.training import (
    Passes,
    evaluate,
    load_weights,
    read_json_object,
    write_json,
)

UNUSED, JUDGED = "unused.json", "judged.json"


@dataclass(frozen=True)
class Spent:
    """MACs x images; the `unused` ones are parts of the others."""

    supernet: int = 0
    judging: int = 0
    training: int = 0
    unused_supernet: int = 0
    unused_training: int = 0

    @property
    def total(self) -> int:
        return self.supernet + self.judging + self.training

    @property
    def unused(self) -> int:
        return self.unused_supernet + self.judging + self.unused_training

    def to_dict(self) -> dict[str, int]:
        return {**asdict(self), "total": self.total, "unused": self.unused}


class Bookkeeper:
    """Reads finished runs. What takes long to find out is kept beside the cell."""

    def __init__(self, runs: Runs, store: Store) -> None:
        self.runs, self.store = runs, store

    def spent(self, entry: Entry) -> Spent:
        """Of a finished entry. Raises: ValueError for a run whose files do not agree."""
        result, spent = self.network(entry), Spent()
        if entry.search is not None:
            judging = int(self._result(entry.search)["judging_macs"])
            supernet = round((self.store.cost(entry.search.identity)["macs"] or 0) - judging)
            unused = supernet
            if self._inherits(entry):
                unused = self._unused(entry.search, result, supernet)
            spent = Spent(supernet, judging, unused_supernet=unused)
        if entry.training is not None:
            training = int(self._result(entry.training)["train_macs"])
            unused = self._unused(entry.training, result, training)
            spent = replace(spent, training=training, unused_training=unused)
        return spent

    def network(self, entry: Entry) -> Architecture:
        """What a finished entry came to."""
        cell = entry.last
        assert cell is not None
        return load_weights(self.store.folder(cell.identity) / "weights.safetensors").arch

    def test_top1(self, entry: Entry) -> float:
        """A search does not look at test images, so what it found is judged here."""
        if entry.training is not None:
            return float(self._result(entry.training)["top1"])
        assert entry.search is not None
        path = self.store.beside(entry.search.identity, JUDGED)
        if not path.exists():
            weights = self.store.folder(entry.search.identity) / "weights.safetensors"
            setting = self.runs.at(_config(entry.search))
            net = load_weights(weights).to(setting.device)
            judged = evaluate(net, setting.test())["top1"]
            self.store.mix(Code().version)
            write_json(path, {"top1": judged})
        return float(read_json_object(path)["top1"])

    def validation_top1(self, entry: Entry) -> float:
        if entry.training is not None:
            return float(self._result(entry.training)["validation_top1"])
        assert entry.search is not None
        return float(self._result(entry.search)["best"]["accuracy"])

    def seconds(self, entry: Entry) -> float:
        """Of the trainings: the supernet's and the network's own."""
        cells = [cell for cell in (entry.search, entry.training) if cell is not None]
        return sum(self.store.cost(cell.identity)["seconds"] or 0.0 for cell in cells)

    def course(self, entry: Entry) -> list[tuple[float, float]]:
        """(MACs x images spent so far, validation top-1) after every epoch of the last training;
        for a network with inherited weights its one point."""
        before = 0.0
        if entry.search is not None:
            before = self.store.cost(entry.search.identity)["macs"] or 0.0
        if entry.training is None:
            return [(before, self.validation_top1(entry))]
        points = []
        for row in self.store.rows(entry.training.identity):
            before += float(row["macs"])
            if "top1" in row:
                points.append((before, float(row["top1"])))
        return points

    def _result(self, cell: Cell) -> dict[str, Any]:
        result = self.store.result(cell.identity)
        assert result is not None
        return result

    def _inherits(self, entry: Entry) -> bool:
        """Whether weights of the search's supernet live on in the result."""
        if entry.search is None or entry.training is None:
            return entry.search is not None
        config = _config(entry.training)
        assert isinstance(config, TrainConfig)
        start = config.init
        if config.netaug is not None and config.netaug.init == "supernet":
            start = config.largest
        return start == str(self.store.folder(entry.search.identity))

    def _unused(self, cell: Cell, result: Architecture, recorded: int) -> int:
        """Of a run's training passes."""
        path = self.store.beside(cell.identity, UNUSED)
        config = _config(cell)
        if isinstance(config, TrainConfig) and config.augmented is None:
            return 0  # all of it is the result's own
        key = hashlib.blake2b(result.canonical().to_json().encode(), digest_size=8).hexdigest()
        known = read_json_object(path) if path.exists() else {}
        if key not in known:
            passes, space = self._passes(cell)
            counted = macs_of(passes)
            if counted != recorded:
                raise ValueError(
                    f"{self.store.folder(cell.identity)} recorded {recorded:,} MACs x images, but "
                    f"its passes come to {counted:,}: its files were edited, or other code made "
                    "it; remove the folder and run the contrast again"
                )
            known[key] = counted - _used(passes, space, result)
            write_json(path, known)
        return int(known[key])

    def _passes(self, cell: Cell) -> tuple[Passes, SearchSpace | None]:
        config = _config(cell)
        setting = self.runs.at(config)
        if isinstance(config, SearchConfig):
            space = config.make_space(setting.target)
            return _together(supernet_parts(config, setting, space)), space
        folder = self.store.folder(cell.identity)
        inside = augmentation_for(config, setting.target, folder)
        helpers = None if inside is None else inside.augmentation.helpers
        return training_part(config, setting, folder).passes(), helpers


def _config(cell: Cell) -> TrainConfig | SearchConfig:
    config = cell.config
    assert isinstance(config, TrainConfig | SearchConfig)
    return config


def _together(parts: Iterable[Part]) -> Passes:
    total = Passes()
    for part in parts:
        total.update(part.passes())
    return total


def _used(passes: Passes, space: SearchSpace | None, result: Architecture) -> int:
    """MACs on weights that the result has. Without a space, a pass is the result's or useless."""
    used = 0
    own = result.canonical() if space is None else space.embed(result)
    for (arch, size), images in passes.items():
        if arch.canonical() == result.canonical():
            used += images * macs_at(arch, size)
        elif space is not None and len(arch.rows) == len(own.rows):
            used += images * shared_macs(arch, own, size)
    return used
