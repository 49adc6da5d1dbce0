"""What is exported: a network, the images that it was evaluated on, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from nasaug.config import load_config
from nasaug.console import say
from nasaug.export import Description
from nasaug.given_weights import given_weights
from nasaug.pipelines.inside import INSIDE
from nasaug.pipelines.plan import make_plan
from nasaug.sections import DataSection
from nasaug.setting import prepare
from nasaug.supernet import Network, target_names
from nasaug.train_config import TrainConfig
from nasaug.training import (
    Dataset,
    RunFolder,
    View,
    load_dataset,
    load_weights,
    normalisation,
    read_facts,
    read_json_object,
)
from nasaug.training.checkpoint import load_newest_checkpoint
from nasaug.training.weights import Weights
from nasaug.workspace import is_down
from nasaug.yaml_files import read_yaml


@dataclass(frozen=True)
class Wanted:
    """Of what, shown which images. `data`, `data_dir` and `resolution` are those of the run where
    they are None; `force` takes an unfinished run."""

    place: str
    data: str | None = None
    data_dir: str | None = None
    download: bool = False
    resolution: int | None = None
    force: bool = False


@dataclass(frozen=True, eq=False)
class Source:
    """`net` in eval mode on the CPU, with the batch-norm statistics that it was evaluated with.

    `folder` is the run's, or where the weights file lies; `origin` says in words what it is from.
    `facts` are those of the weights, `result` what the run printed (empty for a file by itself and
    an unfinished run), `config` and `inside` the run's.
    """

    net: Network
    data: Dataset
    view: View
    folder: Path
    origin: str
    finished: bool
    facts: dict[str, Any]
    result: dict[str, Any]
    config: dict[str, Any]
    inside: dict[str, Any]

    def described(self) -> Description:
        """Its name is one of the package's own, since files are named by it: what a weights file
        says of itself must not name them."""
        named = self.net.arch.name
        name = named if named in target_names() else "network"
        mean, std = self.normalised_by()
        return Description(name, self.origin, mean, std, self.data.classes)

    def normalised_by(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of the images that it was trained on: what its weights say, or those
        of the data where they are of an older release."""
        if "mean" in self.facts and "std" in self.facts:
            return tuple(self.facts["mean"]), tuple(self.facts["std"])
        return normalisation(self.data, self.net.arch.in_channels)


def open_source(wanted: Wanted) -> Source:
    """Raises: ValueError for what is no run and no weights file, an unfinished run without `force`,
    a detector, damaged weights, and images of another kind than the network's; OSError."""
    path = Path(wanted.place)
    if not path.exists():
        path = given_weights(wanted.place)
    if path.is_dir():
        return _of_run(path, wanted)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} is no run's folder and no .safetensors file")
    net, facts = load_weights(path), read_facts(path)
    if "data" not in facts and wanted.data is None:
        raise ValueError(
            f"{path} does not say which images it was trained on; name such by --data, to check "
            "the export on"
        )
    data = _data(wanted, {"name": str(facts["data"])} if "data" in facts else None)
    view = _view(net, wanted, facts.get("resolution"))
    return _checked(
        Source(net, data, view, path.parent, f"the file {path.name}", True, facts, {}, {}, {}),
        wanted,
    )


def _of_run(path: Path, wanted: Wanted) -> Source:
    run = RunFolder(path, writes=False)
    if not (path / "config.yaml").exists():
        raise ValueError(f"{path} is no run: it has no config.yaml; name a run or a weights file")
    config = read_yaml(path / "config.yaml")
    best = read_json_object(path / "best.json") if (path / "best.json").exists() else {}
    if best and not is_down(best):
        raise ValueError(
            f"{path} is a search for a network to train in, not one to ship; export what nasaug "
            "train made inside it"
        )
    if not run.finished and not wanted.force:
        raise ValueError(
            f"{path} is unfinished: it has no result.json; go on with it by --resume, or add "
            "--force to export it as it is"
        )
    origin = f"the run {path.resolve().name}"
    if run.weights.exists():
        net, facts = load_weights(run.weights), read_facts(run.weights)
    else:
        net, facts = _of_checkpoint(path, config, wanted)
    section = config.get("data")
    data = _data(wanted, section if isinstance(section, dict) else {})
    if not run.finished:
        origin += ", unfinished"
        say(f"{path} is unfinished; exported is what there is of it")
    result = _with_numbers(path, {**(run.result() if run.finished else {}), **best})
    inside = read_json_object(path / INSIDE) if (path / INSIDE).exists() else {}
    view = _view(net, wanted, facts.get("resolution") or result.get("train_resolution"))
    return _checked(
        Source(net, data, view, path, origin, run.finished, facts, result, config, inside), wanted
    )


def _of_checkpoint(
    path: Path, config: dict[str, Any], wanted: Wanted
) -> tuple[Network, dict[str, Any]]:
    """The target as it is at the newest checkpoint, its batch norm re-estimated."""
    newest = load_newest_checkpoint(path / "checkpoint")
    if newest is None or "method" not in config:
        raise ValueError(
            f"{path} has no weights and no checkpoint of a training yet; go on with it by --resume"
        )
    given: dict[str, Any] = {"device": "cpu"}
    given |= {"data.name": wanted.data, "data.dir": wanted.data_dir}
    given |= {"data.download": wanted.download or None}
    loaded = load_config(TrainConfig, str(path / "config.yaml"), (), given)
    setting = prepare(loaded)
    plan = make_plan(loaded, setting, path)
    weights = Weights.of(plan.net.to(memory_format=torch.channels_last), loaded.train)
    weights.restore(newest.tensors)
    progress = newest.step / int(newest.facts["steps"])
    net, images = plan.exported(weights.used.eval(), setting.calibration(), progress)
    net.round_to(None)
    facts = {"target": loaded.target, "data": loaded.data.name, "bn_images": images}
    return net.eval(), {**facts, "resolution": setting.view.resolution, "step": newest.step}


def _with_numbers(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """A run's result. Raises: ValueError for accuracies that are no numbers."""
    for key in ("top1", "top5", "loss", "accuracy"):
        value = result.get(key, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{path} is damaged: its result says that {key} is {value!r}")
    return result


def _data(wanted: Wanted, section: dict[str, Any] | None) -> Dataset:
    """The run's own images, or those that were asked for in their place; None: it does not say
    which are its own."""
    try:
        own = DataSection.model_validate(section or {})
    except ValidationError as error:
        raise ValueError(
            f"the run's config.yaml is damaged: data.{error.errors()[0]['loc'][0]} cannot be "
            f"{error.errors()[0]['input']!r}"
        ) from None
    name = own.name if wanted.data is None else wanted.data
    folder = wanted.data_dir
    if folder is None and name == own.name:
        folder = own.dir
    data = load_dataset(name, folder, own.validation, wanted.download, own.imbalance, own.per_class)
    if section is not None and name != own.name:
        _check_kind(data, own)
    return data


def _check_kind(data: Dataset, own: DataSection) -> None:
    """Raises: ValueError for coloured images in place of grey ones, or the other way round, which
    are normalised otherwise. Where the run's own images are not at hand it says so."""
    try:
        trained = load_dataset(own.name, own.dir, own.validation)
    except (ValueError, OSError) as error:
        say(f"not checked whether {data.name} is of the kind of {own.name}: {error}")
        return
    if len(trained.mean) != len(data.mean):
        kinds = {1: "grey", 3: "coloured"}
        raise ValueError(
            f"the network was trained on the {kinds[len(trained.mean)]} images of {own.name}, but "
            f"those of {data.name} are {kinds[len(data.mean)]}; give the --data of its kind"
        )


def _view(net: Network, wanted: Wanted, evaluated_at: Any) -> View:
    """As it was evaluated, unless a resolution is given. A wrong one is found when it is folded."""
    size = wanted.resolution or evaluated_at or net.arch.resolution
    return View(size, net.arch.in_channels)


def _checked(source: Source, wanted: Wanted) -> Source:
    """Raises: ValueError for images that are not of the kind that the network was trained on."""
    arch, data = source.net.arch, source.data
    if arch.num_classes != len(data.classes):
        raise ValueError(
            f"the network tells {arch.num_classes} classes apart, but {data.name} has "
            f"{len(data.classes)}; give the --data that it was trained on"
        )
    shown = normalisation(data, arch.in_channels)
    if source.normalised_by() != shown:
        raise ValueError(
            f"the network reads images normalised by mean and deviation {source.normalised_by()}, "
            f"but those of {data.name} are by {shown}; give the --data of its kind"
        )
    trained, metrics = source.facts.get("classes"), source.folder / "metrics.json"
    if trained is None and source.config and metrics.exists():
        trained = read_json_object(metrics).get("classes")
    if isinstance(trained, list) and trained != list(data.classes):
        raise ValueError(
            f"the network was trained on other classes ({', '.join(map(str, trained[:3]))}, "
            f"...) than {data.name} has ({', '.join(data.classes[:3])}, ...); give the --data "
            "that it was trained on"
        )
    return source
