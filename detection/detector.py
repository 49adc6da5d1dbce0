"""The single-shot detector: a target's rows up to the last feature map, and SSDLite's heads on them
(Liu et al., ECCV 2016; Sandler et al., CVPR 2018).

`Detector(arch, ...)` owns the weights of `arch`. As with `Network`, called with a smaller
architecture it is the detector on that sub-network, on slices of all weights, the heads' too; see
`layout.py` for why. Batch norm is trained and re-estimated as a network's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from nasaug.detection.anchors import anchors_of
from nasaug.detection.layout import Chain, DetectorMacs, Layout, detector_macs, layout_of
from nasaug.detection.losses import Predicted, detection_losses
from nasaug.detection.metrics import Detections
from nasaug.detection.options import DetectorOptions
from nasaug.detection.prediction import detections_of
from nasaug.supernet import Architecture, ElasticNorm, Network
from nasaug.supernet.modules import ElasticConv
from nasaug.supernet.network import Init

# Of all convolutions behind the backbone, as in torchvision's ssdlite.
DEVIATION = 0.03


class Detector(nn.Module):
    """A detector of `classes` on `arch`; fresh weights are drawn from `generator`.

    The rows behind the last feature map (pooling and classifier) are not there. `arch` takes the
    resolution `options.size` and as many classes as there are, which decide nothing.

    `init` is the backbone's scheme (see `Network`), or None to leave all memory as it is.

    Raises: ValueError for no class or one there twice, strides that `arch` has no row of, and more
        extra layers than there are pixels for.
    """

    anchors: Tensor

    def __init__(
        self,
        arch: Architecture,
        classes: Sequence[str],
        options: DetectorOptions | None = None,
        init: Init | None = "fan_out",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not classes or len(set(classes)) < len(classes):
            raise ValueError(f"classes must be different names, at least one, but got {[*classes]}")
        self.options = options = options or DetectorOptions()
        self.classes = tuple(classes)
        self.arch = replace(arch.canonical().with_classes(len(classes)), resolution=options.size)
        layout = layout_of(self.arch, len(classes), options)
        self._rows = layout.rows
        self.backbone = Network(self.arch, init, generator)
        self.backbone.keep_rows(self._rows[-1] + 1)
        self.extra = nn.ModuleList(ElasticChain(leaves) for leaves in layout.extra)
        self.scores = nn.ModuleList(ElasticChain(leaves) for leaves in layout.scores)
        self.boxes = nn.ModuleList(ElasticChain(leaves) for leaves in layout.boxes)
        anchors = anchors_of(layout.sides, options)
        self.register_buffer("anchors", anchors.clone(), persistent=False)
        if init is not None:
            for chain in self._chains():
                chain.initialise(generator)

    def layout(self, sub: Architecture | None = None) -> Layout:
        """What a pass of `sub` asks of the modules behind the backbone."""
        return layout_of(self.arch if sub is None else sub, len(self.classes), self.options)

    def macs(self, sub: Architecture | None = None) -> DetectorMacs:
        """MACs of convolutions, batch 1, at `options.size`."""
        return detector_macs(self.arch if sub is None else sub, len(self.classes), self.options)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, x: Tensor, sub: Architecture | None = None) -> Predicted:
        """x (N, in_channels, size, size) -> what the heads say of the A anchors of each.

        Raises: ValueError if `sub` is not inside this network.
        """
        layout = self.layout(sub)
        maps = self.backbone.feature_maps(x, self._rows, sub)
        for chain, leaves in zip(self.extra, layout.extra, strict=True):
            maps.append(chain(maps[-1], leaves))
        logits = _said(self.scores, maps, layout.scores, len(self.classes) + 1)
        return Predicted(logits, _said(self.boxes, maps, layout.boxes, 4))

    def losses(
        self,
        predicted: Predicted,
        boxes: Sequence[Tensor],
        labels: Sequence[Tensor],
        label_smoothing: float = 0.0,
    ) -> dict[str, Tensor]:
        """{"boxes", "classes"}, whose sum is the loss; see `detection_losses`."""
        return detection_losses(
            predicted, boxes, labels, self.anchors, self.options, label_smoothing
        )

    def detections(self, predicted: Predicted) -> list[Detections]:
        """What is found on each image, in pixels of the square that was read."""
        return detections_of(predicted, self.anchors, self.options)

    def export(self, sub: Architecture | None = None) -> Detector:
        """A static detector of its own memory that computes what `self(x, sub)` computes."""
        sub = self.arch if sub is None else sub
        own = next(self.parameters())
        small = Detector(sub.canonical(), self.classes, self.options, init=None)
        small.to(own.device, own.dtype)
        self.backbone.give(small.backbone, sub)
        chains = zip(self._chains(), small._chains(), self.layout(sub).chains, strict=True)
        with torch.no_grad():
            for mine, theirs, leaves in chains:
                mine.give(theirs, leaves)
        return small.train(self.training)

    def _chains(self) -> Iterator[ElasticChain]:
        for module in (*self.extra, *self.scores, *self.boxes):
            assert isinstance(module, ElasticChain)
            yield module


class ElasticChain(nn.Module):
    """Convolutions one after the other, of which a call uses as much as its leaves say."""

    def __init__(self, leaves: Chain) -> None:
        super().__init__()
        for leaf in leaves:
            self.add_module(leaf.name, ElasticConv(leaf))

    def forward(self, x: Tensor, leaves: Chain) -> Tensor:
        for leaf in leaves:
            x = self._modules[leaf.name](x, leaf)  # type: ignore[misc]
        return x

    def give(self, small: ElasticChain, leaves: Chain) -> None:
        """Have `small` compute what this does for `leaves`."""
        theirs = small.state_dict(keep_vars=True)
        for leaf in leaves:
            for name, tensor in getattr(self, leaf.name).sliced(leaf).items():
                theirs[f"{leaf.name}.{name}"].copy_(tensor)

    def initialise(self, generator: torch.Generator | None) -> None:
        """Convolutions normal, norms 1, biases 0."""
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, ElasticConv):
                    module.weight.normal_(std=DEVIATION, generator=generator)
                    if module.bias is not None:
                        module.bias.zero_()
                elif isinstance(module, ElasticNorm):
                    module.weight.fill_(1.0)
                    module.bias.zero_()


def _said(
    heads: nn.ModuleList, maps: Sequence[Tensor], chains: Sequence[Chain], values: int
) -> Tensor:
    """(N, A, values) of all maps, in the order of the anchors."""
    said = [head(x, leaves) for head, x, leaves in zip(heads, maps, chains, strict=True)]
    return torch.cat([y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, values) for y in said], 1)
