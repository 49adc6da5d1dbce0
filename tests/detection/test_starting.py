"""A detector that begins as another one: what is taken and what is not, against its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nasaug.detection import (
    Detector,
    DetectorOptions,
    holds_detector,
    load_detector,
    save_detector,
    take_detector,
)
from nasaug.supernet import Architecture, Network, SearchSpace, load_target
from nasaug.training import save_weights

CLASSES = ("cat", "dog", "cow")
OPTIONS = {"size": 64, "extra": (32, 16), "aspect_ratios": (2.0,)}


def detector_on(
    arch: Architecture, seed: int, classes: Sequence[str] = CLASSES, **options: Any
) -> Detector:
    """Of drawn weights, norms' and statistics' too, in eval mode."""
    given = DetectorOptions.model_validate({**OPTIONS, **options})
    detector = Detector(arch, classes, given, generator=torch.Generator())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in detector.state_dict().values():
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return detector.eval()


@pytest.fixture(scope="module")
def micro() -> Architecture:
    return load_target("micro_3k", len(CLASSES), 64)


@pytest.fixture(scope="module")
def theirs(micro: Architecture) -> Detector:
    return detector_on(micro, seed=1)


def weights(detector: Detector, part: str) -> dict[str, Tensor]:
    """A copy of the tensors whose names begin with `part`."""
    tensors = detector.state_dict()
    return {name: tensors[name].clone() for name in tensors if name.startswith(part)}


def alike(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return bool(one) and one.keys() == other.keys() and all(map(torch.equal, *values(one, other)))


def values(*given: dict[str, Tensor]) -> list[list[Tensor]]:
    return [[tensors[name] for name in given[0]] for tensors in given]


def parts(detector: Detector) -> list[str]:
    """Names of what is taken or left as a whole."""
    kinds = {"extra": detector.extra, "scores": detector.scores, "boxes": detector.boxes}
    return [f"{kind}.{index}." for kind, chains in kinds.items() for index in range(len(chains))]


def check(own: Detector, theirs: Detector, said: list[str], fresh: set[str]) -> None:
    """Beginning as `theirs`, `own` leaves the parts in `fresh` as they are and takes all others."""
    before = {part: weights(own, part) for part in parts(own)}
    assert take_detector(own, own.arch, theirs) == said
    assert alike(weights(own, "backbone."), weights(theirs, "backbone."))
    left = {part for part in before if alike(weights(own, part), before[part])}
    assert left == fresh
    assert all(alike(weights(own, part), weights(theirs, part)) for part in {*before} - fresh)


@pytest.mark.parametrize("wider", [False, True])
def test_the_same_detector_is_taken_whole(
    micro: Architecture, theirs: Detector, wider: bool
) -> None:
    """Its outputs are theirs, bit for bit, and around it nothing changes."""
    largest = SearchSpace.around(micro, (1.0, 2.0), (1.0, 2.0)).largest if wider else micro
    own = detector_on(largest, seed=2)
    before = weights(own, "")
    assert take_detector(own, micro, theirs) == []
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for said, expected in zip(own.export(micro)(x), theirs(x), strict=True):
            assert torch.equal(said, expected)
    changed = sum(int((before[name] != now).sum()) for name, now in own.state_dict().items())
    assert changed == sum(tensor.numel() for tensor in theirs.state_dict().values())


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("hen", "pig"), "all scores (2 classes in place of 3)"),
        (("dog", "cat", "cow"), "all scores (3 classes in place of 3 others)"),
    ],
)
def test_other_classes(
    micro: Architecture, theirs: Detector, classes: tuple[str, ...], said: str
) -> None:
    own = detector_on(micro, 2, classes)
    check(own, theirs, [said], {f"scores.{index}." for index in range(4)})


@pytest.mark.parametrize("options", [{"aspect_ratios": (3.0,)}, {"smallest": 0.1}])
def test_other_anchors(micro: Architecture, theirs: Detector, options: dict[str, Any]) -> None:
    """All maps' anchors change with the smallest one's size, but those of the last."""
    own = detector_on(micro, 2, **options)
    every = [part for part in parts(own) if not part.startswith("extra")]
    kept = {"scores.3.", "boxes.3."} if "smallest" in options else set()
    check(own, theirs, [f"the heads of {4 - len(kept) // 2} of 4 feature maps"], {*every} - kept)


def test_more_anchors_and_other_classes_are_new_heads_alone(
    micro: Architecture, theirs: Detector
) -> None:
    own = detector_on(micro, 2, ("hen",), aspect_ratios=(2.0, 3.0))
    fresh = {part for part in parts(own) if not part.startswith("extra")}
    check(own, theirs, ["the heads of 4 of 4 feature maps"], fresh)


def test_another_size_is_the_same_detector(micro: Architecture, theirs: Detector) -> None:
    """Anchors are shares of the picture."""
    check(detector_on(micro, 2, size=96), theirs, [], set())


def test_other_extra_layers(micro: Architecture, theirs: Detector) -> None:
    """The first is theirs; what the second gives, and its head, is not."""
    own = detector_on(micro, 2, extra=(32, 24))
    said = ["1 of 2 extra layers", "the heads of 1 of 4 feature maps"]
    check(own, theirs, said, {"extra.1.", "scores.3.", "boxes.3."})


def test_fewer_extra_layers(micro: Architecture, theirs: Detector) -> None:
    """Anchors are spaced from the first map to the last, and so are others with fewer maps."""
    own = detector_on(micro, 2, extra=(32,))
    fresh = {part for part in parts(own) if not part.startswith("extra")}
    check(own, theirs, ["the heads of 3 of 3 feature maps"], fresh)


def test_a_backbone_that_goes_further(micro: Architecture, theirs: Detector) -> None:
    """The rows that a detector on finer maps has dropped stay as they are, and what reads them."""
    shallow = detector_on(micro, 3, strides=(2, 4))
    own = detector_on(micro, 2)
    before = weights(own, "")
    said = take_detector(own, own.arch, shallow)
    first = shallow.layout().rows[-1] + 1
    assert said == [
        f"the backbone from {micro.row_names[first]} on",
        "2 of 2 extra layers",
        "the heads of 4 of 4 feature maps",
    ]
    taken = weights(shallow, "backbone.")
    for name, now in own.state_dict().items():
        assert torch.equal(now, taken.get(name, before[name])), name
    assert {name.split(".")[2] for name in taken} == {str(row) for row in range(first)}


def test_which_files_hold_a_detector(tmp_path: Path, micro: Architecture, theirs: Detector) -> None:
    detector, network, other = (tmp_path / name for name in ("d", "n.safetensors", "o"))
    save_detector(detector, theirs)
    save_weights(network, Network(micro))
    other.write_bytes(b"neither")
    assert holds_detector(detector)
    assert not any(holds_detector(path) for path in (network, other, tmp_path / "none"))


def test_a_detector_on_another_target_is_refused(
    tmp_path: Path, micro: Architecture, theirs: Detector
) -> None:
    save_detector(tmp_path / "d", theirs)
    remedy = "; name the target that it is on, or other weights"
    with pytest.raises(ValueError, match="holds a detector on micro_3k, not on micro_10k" + remedy):
        load_detector(tmp_path / "d", load_target("micro_10k"))
    pictures = "micro_3k for colour pictures, not on micro_3k for grey pictures"
    with pytest.raises(ValueError, match=pictures + remedy):
        load_detector(tmp_path / "d", load_target("micro_3k", in_channels=1))
    assert load_detector(tmp_path / "d", load_target("micro_3k", 7, 96)).arch == micro
