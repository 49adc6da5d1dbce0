"""Classifiers of torchvision and timm with given weights, for teachers.

A file's weights must fit exactly: no layer is left out, none starts fresh.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from nasaug.supernet import did_you_mean, is_dense, read_pickle_safely

Build = Callable[[int], nn.Module]
# How training programs wrap a state dict: the references of torchvision, timm, and many others.
WRAPPERS = ("state_dict", "model", "model_state_dict")
# Without this option both announce, in a warning, that their fresh weights will be others.
WARN_OF_WEIGHTS = ("googlenet", "inception_v3")


@dataclass(frozen=True)
class Library:
    """`load(name, weights, classes)` is a network; `published` an example of published weights."""

    load: Callable[[str, str, int], nn.Module]
    published: str


def from_torchvision(name: str, weights: str, classes: int) -> nn.Module:
    """A classifier of torchvision; `weights` is a file or the name of published weights.

    Raises: ValueError.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise ValueError(f"torchvision has no classifier {name!r}: {_nearest(name, known)}")
    published = models.get_model_weights(name).__members__
    if weights in published:
        entry = published[weights]
        _check_classes(f"torchvision's {name} {weights}", len(entry.meta["categories"]), classes)
        return _downloaded(
            lambda: models.get_model(name, weights=entry), f"torchvision:{name}@{weights}"
        )
    if not Path(weights).is_file():
        raise ValueError(
            f"{weights!r} is neither a file nor weights that torchvision publishes for {name}: "
            f"choose one of {', '.join(published)}, or the path of a file"
        )
    options = {"init_weights": False} if name in WARN_OF_WEIGHTS else {}

    def build(classes: int) -> nn.Module:
        net: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
        return net

    return _from_file(build, Path(weights), name, classes)


def from_timm(name: str, weights: str, classes: int) -> nn.Module:
    """A classifier of timm; `weights` is a file or `pretrained`.

    Raises: ValueError.
    """
    try:
        import timm
    except ImportError:
        raise ValueError(
            f"teacher timm:{name} needs timm, which is not installed; "
            "run pip install 'nasaug[timm]'"
        ) from None
    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}: {_nearest(name, timm.list_models())}")
    try:
        published = timm.get_pretrained_cfg(name)
    except RuntimeError:  # NAME.TAG of another tag
        tags = timm.list_pretrained(f"{name.partition('.')[0]}.*")
        raise ValueError(f"timm has no model {name!r}: {_nearest(name, tags)}") from None
    if weights == "pretrained":
        if published is None or not published.has_weights:
            raise ValueError(f"timm publishes no weights of {name}; name a file in their place")
        _check_classes(f"timm's pretrained {name}", published.num_classes, classes)
        return _downloaded(
            lambda: timm.create_model(name, pretrained=True), f"timm:{name}@pretrained"
        )
    if not Path(weights).is_file():
        raise ValueError(
            f"{weights!r} is not a file; name a state dict of {name}, or write pretrained in its "
            "place to download timm's own"
        )

    def build(classes: int) -> nn.Module:
        net: nn.Module = timm.create_model(name, num_classes=classes)
        return net

    return _from_file(build, Path(weights), name, classes)


def _nearest(name: str, known: Iterable[str]) -> str:
    """Hundreds of names are known: the three nearest at most."""
    return did_you_mean(name, difflib.get_close_matches(name, known, n=3, cutoff=0.0))


def _check_classes(what: str, found: int, classes: int) -> None:
    if found != classes:
        raise ValueError(
            f"a teacher must have the data's {classes} classes, but {what} has {found}; "
            "train one on this data"
        )


def _downloaded(load: Callable[[], Any], spec: str) -> nn.Module:
    """Raises: ValueError if the weights cannot be had."""
    try:
        with torch.random.fork_rng(devices=[]):
            net: nn.Module = load()
    except Exception as error:  # connections, certificates, disks, hashes: each its own class
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"the weights of {spec} could not be downloaded ({type(error).__name__}: {reason}); "
            "download them elsewhere and name the file after the @"
        ) from error
    return net


def _from_file(build: Build, path: Path, name: str, classes: int) -> nn.Module:
    """The network with the file's weights. Raises: ValueError if they are not its own."""
    tensors, metadata = read_state_dict(path)
    with torch.random.fork_rng(devices=[]):
        net = build(classes)
        own = net.state_dict()
        state: OrderedDict[str, Tensor] = OrderedDict(tensors)
        for key, tensor in own.items():
            if key.endswith("num_batches_tracked"):  # files of old have none, and nobody reads it
                state.setdefault(key, tensor)
        # Versions of modules, which some of torchvision's insist on; safetensors holds none.
        state._metadata = metadata or getattr(own, "_metadata", {})  # type: ignore[attr-defined]
        try:
            net.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            problem = _misfit(own, state, build(classes + 1).state_dict())
            if isinstance(problem, int):
                _check_classes(str(path), problem, classes)
            raise ValueError(f"{path} does not hold the weights of {name}: {problem}") from error
    return net


def _misfit(
    own: Mapping[str, Tensor], found: Mapping[str, Tensor], wider: Mapping[str, Tensor]
) -> str | int:
    """What is wrong with `found`; the number of its classes if they are all.

    `wider` is the network's with one class more, which tells what the number of classes decides.
    """
    missing = [name for name in own if name not in found]
    unknown = [name for name in found if name not in own]
    if missing or unknown:
        return (
            f"missing {', '.join(missing[:3]) or 'nothing'} ({len(missing)} in all), "
            f"unknown {', '.join(unknown[:3]) or 'nothing'} ({len(unknown)} in all)"
        )
    wrong = [name for name in own if found[name].shape != own[name].shape]
    numbers = {_classes(own[n].shape, wider[n].shape, found[n].shape) for n in wrong}
    if len(numbers) == 1 and (classes := numbers.pop()) is not None:
        return classes
    shapes = [f"{n} is {tuple(found[n].shape)}, not {tuple(own[n].shape)}" for n in wrong[:3]]
    return "; ".join(shapes) or "they cannot be loaded"


def _classes(own: torch.Size, wider: torch.Size, found: torch.Size) -> int | None:
    """The number of classes of a tensor `found`, if that is all that makes it differ from `own`."""
    if len(own) != len(found):
        return None
    by_classes = [axis for axis in range(len(own)) if own[axis] != wider[axis]]
    differing = [axis for axis in range(len(own)) if own[axis] != found[axis]]
    return found[differing[0]] if differing == by_classes else None


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], Any]:
    """The state dict in a file, and the versions that torch keeps with it (None where it has none).

    A .safetensors, or a file of torch's, read without running code in it; as it is, or wrapped as
    training programs do.

    Raises: ValueError for a file that is damaged, would run code or holds something else; OSError.
    """
    given: Mapping[str, Any]
    if path.suffix == ".safetensors":
        try:
            given = safetensors.torch.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is damaged or no safetensors file ({error})") from None
    else:
        given = read_pickle_safely(path)
    for wrapper in WRAPPERS:
        inner: Any = given.get(wrapper)
        if isinstance(inner, Mapping):
            given = inner
            break
    others = [str(name) for name, value in given.items() if not _is_weight(name, value)]
    if others or not given:
        raise ValueError(
            f"{path} must hold a state dict, names and dense tensors of floats, but holds "
            f"{', '.join(others[:3]) or 'nothing'}"
        )
    metadata = getattr(given, "_metadata", None)
    if all(name.startswith("module.") for name in given):  # as DistributedDataParallel names them
        return {name.removeprefix("module."): value for name, value in given.items()}, None
    return dict(given), metadata


def _is_weight(name: object, value: object) -> bool:
    """Whether it is of a state dict: dense, in memory, of floats (counters are whole numbers)."""
    if not isinstance(name, str) or not isinstance(value, Tensor):
        return False
    return is_dense(value) and (value.is_floating_point() or name.endswith("num_batches_tracked"))


LIBRARIES: dict[str, Library] = {
    "torchvision": Library(from_torchvision, "DEFAULT"),
    "timm": Library(from_timm, "pretrained"),
}
