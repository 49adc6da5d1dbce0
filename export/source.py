"""The network as a Python module that needs torch and nothing else: written to be read, with its
rows as the papers' tables have them. Everything that is made from PyTorch is made from this module,
run from its own text, so that what ships is what was checked.

Nothing from elsewhere becomes program text: names of classes are written as literals, and the
module's own name is chosen by whoever calls (see `Description`).
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from nasaug.export.blocks import ACTIVATIONS, CLASSES, SQUEEZED
from nasaug.export.folding import Folded
from nasaug.supernet import (
    Bottleneck,
    Conv,
    DepthwiseSeparable,
    GlobalAvgPool,
    InvertedResidual,
    MaxPool,
    Row,
)

WIDTH = 88
NETWORK = "Network"  # what the class of the whole is called
LOAD = f'''\
def load(path: str | Path | None = None) -> {NETWORK}:
    """The trained network in eval mode, from the safetensors file beside this one.

    `path`: another file; one that ends in .pt is a state dict that torch.save wrote.
    """
    path = Path(__file__).with_suffix(".safetensors") if path is None else Path(path)
    if path.suffix == ".pt":
        tensors = torch.load(path, weights_only=True)
    else:
        from safetensors.torch import load_file

        tensors = load_file(path)
    net = {NETWORK}()
    net.load_state_dict(tensors)
    return net.eval()
'''


@dataclass(frozen=True)
class Description:
    """What is known of a network besides its weights. `name` becomes a module's and files' name;
    `mean` and `std` have an entry a channel, of values from 0 to 1; `origin` is a line of text.

    Raises: ValueError for a name that is no Python identifier of ASCII letters, and for statistics
        that are not one a channel.
    """

    name: str
    origin: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w{0,63}", self.name, re.ASCII) or keyword.iskeyword(
            self.name
        ):
            raise ValueError(
                "the name of an export must be letters, digits and underscores, such as "
                f"mbv2_tiny, but got {self.name!r}"
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise ValueError(
                "mean and std need an entry for every channel, 1 or 3, but got "
                f"{len(self.mean)} and {len(self.std)}"
            )


def source_of(folded: Folded, described: Description) -> str:
    """The module's text.

    Raises: ValueError if there are other statistics than channels.
    """
    arch = folded.arch
    if len(described.mean) != arch.in_channels:
        raise ValueError(
            f"{arch.name} reads {arch.in_channels} channels, but mean and std are of "
            f"{len(described.mean)}"
        )
    rows = list(zip(arch.rows[:-1], arch.widths_in, strict=False))
    calls = [_row(row, width) for row, width in rows]
    used = [name for name in CLASSES if any(f"{name}(" in call for call in calls)]
    squeezing = {type(row).__name__ for row, _ in rows if getattr(row, "squeeze", None)}
    bodies = CLASSES | {name: SQUEEZED[name] for name in squeezing}
    if squeezing:
        used.insert(0, "SqueezeExcite")
    if set(used) & {"DepthwiseSeparable", "InvertedResidual", "Bottleneck"}:
        used.append("ConvAct")
    classes = [bodies[name] for name in CLASSES if name in used]
    parts = [_head(folded, described, bool(used), "F." in "".join([*calls, *classes]))]
    parts += [*classes, _network(folded, calls), LOAD]
    return "\n\n".join(parts)


def state_of(folded: Folded) -> dict[str, Tensor]:
    """The tensors by the names that they have in the generated module."""
    last = len(folded.arch.rows) - 1
    renamed = {}
    for name, tensor in folded.tensors.items():
        _, index, rest = name.split(".", 2)
        if int(index) == last:
            renamed[f"classifier.{rest.removeprefix('linear.')}"] = tensor
        else:
            renamed[f"features.{index}.{rest.removeprefix('conv.')}"] = tensor
    return renamed


def run_source(text: str, described: Description, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network that a generated module describes, with `tensors` (see `state_of`), in eval mode.

    Raises: ValueError for tensors of another network.
    """
    net: nn.Module = module_of(text, Path(f"{described.name}.py")).__dict__[NETWORK]()
    try:
        net.load_state_dict(dict(tensors))
    except RuntimeError as error:
        raise ValueError(f"the tensors are not of {described.name}: {error}") from None
    return net.eval()


def module_of(text: str, path: Path) -> ModuleType:
    """A module as if imported from `path`, but without the bytecode that an import leaves there."""
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    exec(compile(text, path, "exec"), module.__dict__)
    return module


def _head(folded: Folded, described: Description, activates: bool, functional: bool) -> str:
    arch, name = folded.arch, described.name
    count = sum(tensor.numel() for tensor in folded.tensors.values())
    shape = f"(N, {arch.in_channels}, {arch.resolution}, {arch.resolution})"
    size = f"{arch.in_channels} x {arch.resolution} x {arch.resolution}"
    lines = [
        f'"""{name}: {count:,} parameters, {arch.num_classes} classes, images of {size}.',
        "",
        f"Exported by nasaug from {_plain(described.origin)}. Batch norm is folded into the",
        "convolutions. This file needs torch, and safetensors to read the weights beside it:",
        "",
        f"    from {name} import load",
        "",
        f"    logits = load()(images)  # {shape} -> (N, {arch.num_classes})",
        "",
        "`images` are float32; from values between 0 and 1 subtract MEAN and divide by STD,",
        "channel by channel.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        *(["from collections.abc import Callable"] if activates else []),
        "from pathlib import Path",
        "",
        "import torch",
        "from torch import Tensor, nn",
        *(["from torch.nn import functional as F"] if functional else []),
        "",
        f"RESOLUTION = {arch.resolution}",
        _assigned("MEAN", [repr(round(value, 6)) for value in described.mean]),
        _assigned("STD", [repr(round(value, 6)) for value in described.std]),
    ]
    if described.classes:
        lines.append(_assigned("CLASSES", [_literal(text) for text in described.classes]))
    if activates:
        lines.append("Activation = Callable[[Tensor], Tensor]")
    return "\n".join(lines) + "\n"


def _network(folded: Folded, calls: Sequence[str]) -> str:
    arch = folded.arch
    classifier = f"nn.Linear({arch.widths_in[-1]}, {arch.num_classes})"
    return "\n".join(
        [
            f"class {NETWORK}(nn.Module):",
            "    def __init__(self) -> None:",
            "        super().__init__()",
            "        self.features = nn.Sequential(",
            *calls,
            "        )",
            f"        self.classifier = {classifier}",
            "",
            "    def forward(self, x: Tensor) -> Tensor:",
            "        return self.classifier(self.features(x).flatten(1))",
            "",
        ]
    )


def _row(row: Row, width: int) -> str:
    """A line of `features`, with its comma."""
    if isinstance(row, Conv):
        sizes = [str(width), str(row.out), f"kernel={row.kernel}", *_strided(row)]
        return _call("ConvAct", [*sizes, *_act(row.act)])
    if isinstance(row, DepthwiseSeparable):
        sizes = [str(width), str(row.out), f"kernel={row.kernel}", *_strided(row)]
        more = [*_flag("skip", row.skip), *_squeezed(row.squeeze)]
        return _call("DepthwiseSeparable", [*sizes, *_act(row.act), *more])
    if isinstance(row, InvertedResidual):
        sizes = [str(width), str(row.mid), str(row.out), f"kernel={row.kernel}", *_strided(row)]
        more = [*_flag("skip", row.skip), *_squeezed(row.squeeze)]
        return _call("InvertedResidual", [*sizes, *_act(row.act), *more])
    if isinstance(row, Bottleneck):
        sizes = [str(width), str(row.mid), str(row.out), f"kernel={row.kernel}", *_strided(row)]
        return _call("Bottleneck", [*sizes, *_act(row.act), *_flag("project", row.projection)])
    if isinstance(row, MaxPool):
        return _call("nn.MaxPool2d", [str(row.kernel), str(row.stride), str(row.kernel // 2)])
    assert isinstance(row, GlobalAvgPool), row
    return _call("nn.AdaptiveAvgPool2d", ["1"])


def _strided(row: Row) -> list[str]:
    return [] if row.downsampling == 1 else [f"stride={row.downsampling}"]


def _act(act: str) -> list[str]:
    return [] if act == "none" else [f"act={ACTIVATIONS[act]}"]


def _squeezed(squeeze: int | None) -> list[str]:
    return [] if squeeze is None else [f"squeezed={squeeze}"]


def _flag(name: str, value: bool) -> list[str]:
    return [f"{name}=True"] if value else []


def _call(function: str, arguments: Sequence[str], indent: int = 12) -> str:
    """A call in a list of them, broken as formatters do where it is too long for a line."""
    space = " " * indent
    line = f"{space}{function}({', '.join(arguments)}),"
    if len(line) <= WIDTH:
        return line
    within = f"{space}    {', '.join(arguments)}"
    if len(within) <= WIDTH:
        return f"{space}{function}(\n{within}\n{space}),"
    lines = "".join(f"{space}    {argument},\n" for argument in arguments)
    return f"{space}{function}(\n{lines}{space}),"


def _assigned(name: str, values: Sequence[str]) -> str:
    """`NAME = (...)`, a tuple."""
    inner = ", ".join(values) + ("," if len(values) == 1 else "")
    line = f"{name} = ({inner})"
    if len(line) <= WIDTH or len(values) == 1:
        return line
    return f"{name} = (\n" + "".join(f"    {value},\n" for value in values) + ")"


def _literal(text: str) -> str:
    """A Python literal of any text."""
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else ascii(text)


def _plain(text: str) -> str:
    """What of a text can stand in a docstring: nothing that ends it, or a line."""
    return re.sub(r"[^\w ./:,()+-]", "_", text, flags=re.ASCII)[:60]
