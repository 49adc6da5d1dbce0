"""The classes that a generated module is put together from, as text: plain PyTorch, one class for
every kind of row, names as in the Network that the weights come from.

A module holds only those that its network uses (see `source.py`).
"""

from __future__ import annotations

CONVOLUTION = '''\
class ConvAct(nn.Conv2d):
    """A convolution, padded by half its kernel, and an activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: Activation | None = None,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, groups=groups)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.act is None else self.act(y)
'''

SQUEEZE = '''\
class SqueezeExcite(nn.Module):
    """Scales every channel by what the means of all channels say (MobileNetV3)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.restore = nn.Conv2d(squeezed, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * F.hardsigmoid(self.restore(scale))
'''

# Blocks, with what is needed for squeeze-and-excitation in the places of %, or without.
SEPARABLE = '''\
class DepthwiseSeparable(nn.Module):
    """A depthwise convolution with an activation, then a linear 1x1 convolution."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        act: Activation | None = None,
        skip: bool = False,
%(argument)s    ) -> None:
        super().__init__()
        self.depthwise = ConvAct(inputs, inputs, kernel, stride, inputs, act)
%(member)s        self.project = nn.Conv2d(inputs, outputs, 1)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(%(squeezed)sself.depthwise(x)%(end)s)
        return y + x if self.skip else y
'''

INVERTED = '''\
class InvertedResidual(nn.Module):
    """1x1 to `hidden` channels, depthwise, linear 1x1 (MobileNetV2)."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        act: Activation | None = None,
        skip: bool = False,
%(argument)s    ) -> None:
        super().__init__()
        self.expand = ConvAct(inputs, hidden, act=act)
        self.depthwise = ConvAct(hidden, hidden, kernel, stride, hidden, act)
%(member)s        self.project = nn.Conv2d(hidden, outputs, 1)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(%(squeezed)sself.depthwise(self.expand(x))%(end)s)
        return y + x if self.skip else y
'''

BOTTLENECK = '''\
class Bottleneck(nn.Module):
    """1x1 to `hidden` channels, a convolution, 1x1; added to the input (ResNet)."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        kernel: int = 3,
        stride: int = 1,
        act: Activation | None = None,
        project: bool = False,
    ) -> None:
        super().__init__()
        self.reduce = ConvAct(inputs, hidden, act=act)
        self.spatial = ConvAct(hidden, hidden, kernel, stride, act=act)
        self.restore = nn.Conv2d(hidden, outputs, 1)
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride) if project else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.restore(self.spatial(self.reduce(x))) + self.shortcut(x))
'''

PLAIN = {"argument": "", "member": "", "squeezed": "", "end": ""}


def _squeezed(channels: str) -> dict[str, str]:
    made = f"SqueezeExcite({channels}, squeezed) if squeezed else nn.Identity()"
    return {
        "argument": "        squeezed: int = 0,\n",
        "member": f"        self.squeeze = {made}\n",
        "squeezed": "self.squeeze(",
        "end": ")",
    }


ACTIVATIONS = {"relu": "F.relu", "relu6": "F.relu6", "hardswish": "F.hardswish"}
# What one class needs another for; in the order in which they are written.
CLASSES = {
    "ConvAct": CONVOLUTION,
    "SqueezeExcite": SQUEEZE,
    "DepthwiseSeparable": SEPARABLE % PLAIN,
    "InvertedResidual": INVERTED % PLAIN,
    "Bottleneck": BOTTLENECK,
}
SQUEEZED = {
    "DepthwiseSeparable": SEPARABLE % _squeezed("inputs"),
    "InvertedResidual": INVERTED % _squeezed("hidden"),
}
