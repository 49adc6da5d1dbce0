"""Bad input to whole commands: exit code 2, a message with rule, value and remedy, nothing
written."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Nasaug = Callable[..., Any]
FilesBelow = Callable[[], dict[str, bytes]]
FEW = ("--set=train.batch_size=4", "--set=train.bn_images=8", "--set=data.workers=0")


def _refused(done: Any, *words: str) -> None:
    assert done.code == 2
    assert done.out == ""
    for word in words:
        assert word in done.said


@pytest.mark.parametrize("command", ["search", "train"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--target=mbv2_tinny"], ["unknown target 'mbv2_tinny'", "did you mean 'mbv2_tiny'"]),
        (["--target=missing.yaml"], ["missing.yaml", "No such file"]),
        (["--target=odd.yaml"], ["odd.yaml is not a target's table", "row 0", "kind"]),
        (["--target=folder.yaml"], ["folder.yaml", "Is a directory"]),
        (["--data=fashon"], ["unknown data set 'fashon'", "did you mean 'fashion-mnist'"]),
        (["--data=xyzzy"], ["unknown data set 'xyzzy'", "fashion-mnist-mini", "imagefolder:PATH"]),
        (["--data-dir=nowhere"], ["fashion-mnist was not found", "nowhere", "--data-dir"]),
        (["--data=cifar10", "--data-dir=nowhere"], ["cifar10 was not found", "--download"]),
        (["--data=imagefolder:nowhere"], ["nowhere/train is not a folder", "CLASS/*.jpg"]),
        (["--data=imagefolder:lonely"], ["lonely/train", "one class only (cat)", "two are needed"]),
        (["--data=imagefolder:bare"], ["bare/train has no folder of a class"]),
        (["--data=imagefolder:untested"], ["untested needs a folder val or test"]),
        (["--data=imagefolder:hollow"], ["hollow/train/dog has no images", ".png"]),
        (["--data=imagefolder:foreign"], ["foreign/test", "the training part lacks: bird"]),
        (["--out=file"], ["file"]),
        (["--out=file/below"], ["file"]),
        (["--out=/proc/nasaug/run"], ["/proc/nasaug"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) and value[0][0] == "-" else "",
)
def test_refused_before_anything_is_written(
    command: str,
    change: list[str],
    words: list[str],
    nasaug: Nasaug,
    quick: tuple[str, ...],
    image_folder: Callable[..., Path],
    files_below: FilesBelow,
) -> None:
    Path("odd.yaml").write_text("resolution: 28\nrows: [{kind: cnv}]\n")
    Path("folder.yaml").mkdir()
    Path("file").write_text("mine")
    Path("bare/train").mkdir(parents=True)
    image_folder("lonely", ("cat",))
    shutil.rmtree(image_folder("untested") / "test")
    for image in (image_folder("hollow") / "train" / "dog").iterdir():
        image.unlink()
    shutil.move(image_folder("foreign") / "test" / "cat", "foreign/test/bird")
    before = files_below()
    _refused(nasaug(command, *quick, "--out=here", *change), *words)
    assert files_below() == before


def test_a_damaged_image_is_named(
    nasaug: Nasaug, quick: tuple[str, ...], image_folder: Callable[..., Path]
) -> None:
    image = image_folder("pets", count=40) / "train" / "dog" / "3.png"
    for content in (b"", b"no image", image.read_bytes()[:60]):
        image.write_bytes(content)
        shutil.rmtree("here", ignore_errors=True)
        pets = ("--data=imagefolder:pets", *FEW)
        done = nasaug("train", *quick, *pets, "--method=baseline", "--out=here")
        _refused(done, "pets/train/dog/3.png cannot be read")
        assert not Path("here/weights.safetensors").exists()
        assert not Path("here/result.json").exists()


def test_a_damaged_image_is_named_by_a_decoding_process(
    nasaug: Nasaug, quick: tuple[str, ...], image_folder: Callable[..., Path]
) -> None:
    (image_folder("pets", count=40) / "train" / "dog" / "3.png").write_bytes(b"no image")
    pets = ("--data=imagefolder:pets", *FEW, "--set=data.workers=1")
    done = nasaug("train", *quick, *pets, "--method=baseline", "--out=here")
    _refused(done, "pets/train/dog/3.png cannot be read")


def _cut(content: bytes) -> bytes:
    return content[:-1]


def _scrambled_gzip(content: bytes) -> bytes:
    packed = bytearray(gzip.compress(content))
    packed[1000:1100] = bytes(100)
    return bytes(packed)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("train-images-idx3-ubyte", _cut, ["train-images-idx3-ubyte", "cut off"]),
        ("t10k-labels-idx1-ubyte", _cut, ["t10k-labels-idx1-ubyte", "cut off"]),
        ("train-images-idx3-ubyte", lambda _: b"", ["train-images-idx3-ubyte", "not a readable"]),
        ("train-labels-idx1-ubyte", lambda _: b"garbage!" * 9, ["train-labels-idx1-ubyte"]),
        ("train-labels-idx1-ubyte", lambda old: old[:8] + bytes(320), ["one class only"]),
    ],
)
def test_damaged_data_files(
    name: str,
    change: Callable[[bytes], bytes],
    words: list[str],
    nasaug: Nasaug,
    quick: tuple[str, ...],
    clothes: Path,
) -> None:
    shutil.copytree(clothes, "copy")
    Path("copy", name).write_bytes(change(Path("copy", name).read_bytes()))
    _refused(nasaug("train", *quick, "--data-dir=copy", "--out=here"), *words)
    assert not Path("here").exists()


def test_a_missing_part_of_the_data(nasaug: Nasaug, quick: tuple[str, ...], clothes: Path) -> None:
    shutil.copytree(clothes, "copy")
    Path("copy/t10k-labels-idx1-ubyte").unlink()
    _refused(nasaug("train", *quick, "--data-dir=copy", "--out=here"), "t10k-labels-idx1-ubyte")


@pytest.mark.parametrize("name", ["scrambled", "too many labels", "too few labels", "labels of 12"])
def test_data_files_that_do_not_belong_together(
    name: str, nasaug: Nasaug, quick: tuple[str, ...], clothes: Path
) -> None:
    shutil.copytree(clothes, "copy")
    labels = Path("copy/train-labels-idx1-ubyte")
    values = labels.read_bytes()[8:]
    changed = {
        "too many labels": values + values[:80],
        "too few labels": values[:-20],
        "labels of 12": bytes(12 if value == 9 else value for value in values),
    }.get(name)
    if changed is None:
        images = Path("copy/train-images-idx3-ubyte")
        images.with_suffix(".gz").write_bytes(_scrambled_gzip(images.read_bytes()))
    else:
        labels.write_bytes(labels.read_bytes()[:4] + len(changed).to_bytes(4, "big") + changed)
    done = nasaug("train", *quick, "--data-dir=copy", "--out=here")
    _refused(done, "copy/train-")
    assert not Path("here").exists()


def test_more_images_a_batch_than_there_are(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    done = nasaug("train", *quick, "--set=train.batch_size=1000", "--out=here")
    _refused(done, "batch_size x workers must be at most the 287 training images", "1000 x 1")


def test_more_images_a_batch_than_there_are_leaves_no_folder(
    nasaug: Nasaug, quick: tuple[str, ...]
) -> None:
    assert nasaug("train", *quick, "--set=train.batch_size=1000", "--out=here").code == 2
    assert not Path("here").exists()


def test_no_image_left_to_validate_on(
    nasaug: Nasaug, quick: tuple[str, ...], image_folder: Callable[..., Path]
) -> None:
    image_folder("pets", count=1)
    sets = ("--set=train.batch_size=2", "--set=train.bn_images=2", "--set=data.workers=0")
    done = nasaug("train", *quick, "--data=imagefolder:pets", *sets, "--out=here")
    _refused(done, "one image only", "none is left to validate on")
    assert not Path("here").exists()


def test_an_endless_warm_up(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    done = nasaug("train", *quick, "--set=train.warmup_epochs=.inf", "--out=here")
    _refused(done, "train.warmup_epochs", "inf")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing.json", ["missing.json"]),
        ("empty", ["empty/best.json"]),
        ("garbage.json", ["garbage.json is not a search result"]),
        ("binary.json", ["binary.json is not a search result"]),
        ("list.json", ["list.json is not a search result", "JSON object"]),
        ("partial.json", ["partial.json is not a search result", "needs", "budget_macs"]),
        ("other.json", ["other.json was searched for micro_40k, not micro_10k", "--largest"]),
        ("smaller.json", ["does not contain micro_10k", "does not fit into"]),
        ("larger.json", ["28 x 28", "32 x 32"]),
    ],
)
def test_a_largest_network_that_is_none(
    path: str,
    words: list[str],
    nasaug: Nasaug,
    quick: tuple[str, ...],
    best: dict[str, Any],
    files_below: FilesBelow,
) -> None:
    Path("empty").mkdir()
    Path("garbage.json").write_text("{garbage")
    Path("binary.json").write_bytes(b"\x80\xff")
    Path("list.json").write_text("[1]")
    Path("partial.json").write_text('{"target": "micro_10k", "macs": 3}')
    _write(best, "other.json", target="micro_40k")
    rows = [dict(row) for row in best["architecture"]["rows"]]
    rows[2]["mid"] = 8
    _write(best, "smaller.json", architecture={**best["architecture"], "rows": rows})
    _write(best, "larger.json", architecture={**best["architecture"], "resolution": 32})
    before = files_below()
    _refused(nasaug("train", *quick, f"--largest={path}", "--out=here"), *words)
    assert files_below() == before


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": {"resolution": 28, "rows": 3}},
        {"budget_macs": "much"},
        {"space": [1]},
        {"space": {"width": 3, "expand": [1]}},
        {"space": {"width": ["a"], "expand": ["b"]}},
    ],
    ids=str,
)
def test_a_search_result_with_wrong_values(
    change: dict[str, Any], nasaug: Nasaug, quick: tuple[str, ...], best: dict[str, Any]
) -> None:
    _write(best, "odd.json", **change)
    _refused(nasaug("train", *quick, "--largest=odd.json", "--out=here"), "odd.json")


def test_a_damaged_search_nearby_is_named(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    (searched / "best.json").write_text("{")
    _refused(nasaug("train", *quick, "--out=here"), "searched/best.json is not a search result")


def test_a_search_without_its_supernet(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    shutil.rmtree(searched / "supernet")
    done = nasaug("train", *quick, "--init=supernet", "--out=here")
    _refused(done, "searched/supernet/weights.safetensors")
    assert not Path("here").exists()


@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_foreign_folder_nearby_does_not_stop_a_search(
    content: str, nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    (searched / "supernet" / "result.json").write_text(content)
    assert nasaug("search", *quick, "--budget=2M", "--trials=1", "--out=here").code == 0


def test_a_damaged_supernet_nearby_does_not_spoil_a_search(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    weights = searched / "supernet" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    command = ("search", *quick, "--budget=2M", "--trials=1", "--out=here")
    done = nasaug(*command)
    if done.code != 0:
        _refused(done, "searched/supernet/weights.safetensors")
        shutil.rmtree(searched)
        assert nasaug(*command, "--resume").code == 0


@pytest.mark.parametrize(
    "storage", ["sqlite:////nowhere/study.db", "ftp://a/b", "://", "nowhere/study"]
)
def test_a_storage_that_cannot_be_used(
    storage: str, nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    done = nasaug(
        "search", *quick, "--budget=2M", "--trials=1", "--out=here", f"--storage={storage}"
    )
    _refused(done, storage)


@pytest.mark.parametrize(
    "content", [b"SQLite format 3\0\n\0\0", b"dear", b"garbage\n"], ids=["sqlite", "text", "line"]
)
def test_a_storage_that_is_a_file_of_something_else_is_left_alone(
    content: bytes, nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    Path("study.db").write_bytes(content)
    done = nasaug("search", *quick, "--budget=2M", "--trials=1", "--out=here", "--storage=study.db")
    assert Path("study.db").read_bytes() == content
    _refused(done, "study.db")


def test_two_searches_in_one_database(
    nasaug: Nasaug, quick: tuple[str, ...], searched: Path
) -> None:
    for budget in ("2M", "3M"):
        search = ("search", *quick, "--trials=1", "--storage=sqlite:///study.db")
        assert nasaug(*search, f"--budget={budget}", f"--out={budget}").code == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(nasaug: Nasaug, quick: tuple[str, ...]) -> None:
    _refused(nasaug("train", *quick, "--device=cuda", "--out=here"), "use --device cpu")


def _write(best: dict[str, Any], name: str, **changes: Any) -> None:
    Path(name).write_text(json.dumps({**best, **changes}))
