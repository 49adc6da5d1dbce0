"""Loading the checkpoints of the NetAug authors' published code by their parameter names.

Their networks are `backbone.input_stem.op_list.0`, `backbone.stages.S.op_list.B`, `head.op_list.N`;
taken in this order, the entries that own weights are our rows, one to one.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasaug.supernet.architecture import Architecture
from nasaug.supernet.network import Network
from nasaug.supernet.rows import GlobalAvgPool, MaxPool, Skip

PLACE = re.compile(
    r"(?:module\.)?(?:backbone\.)?(input_stem|stages|head)\.(?:(\d+)\.)?op_list\.(\d+)\.(.+)"
)
SECTIONS = ("input_stem", "stages", "head")
RENAMED = (
    ("conv.inverted_conv.conv.", "expand."),
    ("conv.inverted_conv.norm.", "expand.norm."),
    ("conv.depth_conv.conv.", "depthwise."),
    ("conv.depth_conv.norm.", "depthwise.norm."),
    ("conv.se_layer.reduce_conv.", "squeeze.reduce."),
    ("conv.se_layer.expand_conv.", "squeeze.restore."),
    ("conv.point_conv.conv.", "project."),
    ("conv.point_conv.norm.", "project.norm."),
    ("norm.", "conv.norm."),
)


def load_published(state_dict: Mapping[str, Any] | str | Path, arch: Architecture) -> Network:
    """The network of `arch` with the weights of an authors' checkpoint.

    `state_dict` is a mapping (plain, or wrapped as {"state_dict": ...}) or the path of a file,
    which is read with `weights_only`: a pickle that would run code is refused.

    Raises: ValueError saying what does not fit; FileNotFoundError.
    """
    given = state_dict
    if not isinstance(given, Mapping):
        given = read_pickle_safely(Path(given))
    tensors: Mapping[str, Any] = given.get("state_dict", given)
    if not isinstance(tensors, Mapping):
        raise ValueError("the checkpoint's state_dict is not a mapping of names to tensors")
    net = Network(arch.canonical(), init=None)
    rename = _row_of_place(tensors, net.arch)
    found = {
        rename(name): value
        for name, value in tensors.items()
        if not name.endswith("num_batches_tracked")
    }
    return fill(net, found)


def published_classes(state_dict: Mapping[str, Any]) -> int | None:
    """How many classes an authors' checkpoint tells apart: the rows of its last matrix; None where
    it has no matrix."""
    tensors = state_dict.get("state_dict", state_dict)
    values = tensors.values() if isinstance(tensors, Mapping) else ()
    heads = [len(value) for value in values if isinstance(value, Tensor) and value.ndim == 2]
    return heads[-1] if heads else None


def fill(net: Network, found: Mapping[str, Any]) -> Network:
    """`net`, in eval mode, with the tensors of a foreign checkpoint, by our names in `found`.

    Raises: ValueError saying which are missing, unknown or of another shape.
    """
    arch, expected = net.arch, net.state_dict()
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    if missing or unknown:
        raise ValueError(
            f"the checkpoint is not of {arch.name}: "
            f"missing {', '.join(missing[:3]) or 'nothing'} ({len(missing)} in all), "
            f"unknown {', '.join(unknown[:3]) or 'nothing'} ({len(unknown)} in all)"
        )
    for name, value in found.items():
        if not isinstance(value, Tensor) or value.is_nested:
            raise ValueError(f"{name} must be a tensor, but is {type(value).__name__}")
        shape = tuple(value.shape)
        if shape != tuple(expected[name].shape):
            raise ValueError(
                f"the checkpoint is not of {arch.name} with {arch.num_classes} classes: "
                f"{name} has shape {shape}, expected {tuple(expected[name].shape)}"
            )
        if not is_dense(value) or not value.is_floating_point():
            raise ValueError(
                f"{name} must be a dense tensor of floats, but is {value.layout} {value.dtype}"
            )
        numbers = value.double()  # the smallest floats can be compared with nothing
        if not numbers.isfinite().all():
            raise ValueError(f"{name} must hold finite floats, but its numbers are not")
        if name.endswith("running_var") and (numbers < 0).any():
            raise ValueError(f"{name} holds variances, but some of them are negative")
    net.load_state_dict(found)
    return net.eval()


def is_dense(tensor: Tensor) -> bool:
    """Whether its numbers are in memory, one by one, as they are."""
    special = tensor.is_nested or tensor.is_quantized or tensor.device.type == "meta"
    return tensor.layout == torch.strided and not special


def read_pickle_safely(path: Path) -> Mapping[str, Any]:
    """Tensors from a torch file, never running code in it.

    Raises: ValueError for a file that is no torch file, that would run code or holds no mapping.
    """
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"refused to load {path}: not a plain file of tensors ({reason})"
        ) from None
    except OSError:
        raise
    except Exception as error:  # a damaged file can fail anywhere inside torch.load
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} is not a readable torch file ({reason})") from None
    if not isinstance(data, Mapping):
        raise ValueError(f"{path} holds a {type(data).__name__}, not a mapping of names to tensors")
    return data


def _row_of_place(names: Mapping[str, Any], arch: Architecture) -> Any:
    """A function from the authors' name of a tensor to ours."""
    places = {}
    for name in names:
        match = PLACE.fullmatch(str(name))
        if match is None:
            raise ValueError(
                f"{name!r} is not a parameter name of the NetAug authors' networks "
                "(backbone.input_stem..., backbone.stages..., head...)"
            )
        section, stage, op, rest = match.groups()
        places[name] = ((SECTIONS.index(section), int(stage or 0), int(op)), rest)
    with_weights = [
        index
        for index, row in enumerate(arch.rows)
        if not isinstance(row, GlobalAvgPool | MaxPool | Skip)
    ]
    order = sorted({place for place, _ in places.values()})
    if len(order) != len(with_weights):
        raise ValueError(
            f"the checkpoint is not of {arch.name}: it has {len(order)} rows with weights, "
            f"{arch.name} has {len(with_weights)}"
        )
    row_of = dict(zip(order, with_weights, strict=True))

    def rename(name: str) -> str:
        place, rest = places[name]
        for theirs, ours in RENAMED:
            if rest.startswith(theirs):
                rest = ours + rest.removeprefix(theirs)
                break
        return f"blocks.{row_of[place]}.{rest}"

    return rename
