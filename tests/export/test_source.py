"""The generated module: read, formatted and imported as somebody else would, without nasaug."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from nasaug.export import Description, Model, fold, open_format, run_source, source_of, state_of
from nasaug.supernet import load_target, target_names

Own = Any
# Finds nasaug, and what only nasaug needs, not there.
STRANGER = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("nasaug", "onnx", "scipy", "pydantic", "optuna"):
            raise ImportError(name + " is not here")
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
import torch, safetensors.torch
import mixed
images = safetensors.torch.load_file(sys.argv[2])["images"]
with torch.inference_mode():
    logits = mixed.load()(images)
assert mixed.CLASSES[3] == "class 3" and mixed.RESOLUTION == 37
safetensors.torch.save_file({"logits": logits}, sys.argv[3])
"""


def test_a_stranger_without_nasaug_gets_the_same_logits(own: Own, tmp_path: Path) -> None:
    net, images = own.random_network(own.MIXED), own.images_for(own.MIXED)
    open_format("torch").write(Model.of(fold(net), own.DESCRIBED), tmp_path / "mixed")
    open_format("torch").open(tmp_path / "mixed", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"mixed.py", "mixed.safetensors"}
    place = tmp_path / "io"
    place.mkdir()
    safetensors.torch.save_file({"images": images}, place / "in.safetensors")
    paths = [str(tmp_path), str(place / "in.safetensors"), str(place / "out.safetensors")]
    subprocess.run([sys.executable, "-I", "-c", STRANGER, *paths], check=True)
    logits = safetensors.torch.load_file(place / "out.safetensors")["logits"]
    assert own.far_apart(logits, own.by_hand(own.MIXED, net.state_dict(), images)) < 1e-5


def test_the_module_reads_other_weights_too_and_no_foreign_pickle(own: Own, tmp_path: Path) -> None:
    model = Model.of(fold(own.random_network(own.MIXED)), own.DESCRIBED)
    other = Model.of(fold(own.random_network(own.MIXED, seed=5)), own.DESCRIBED)
    open_format("torch").write(model, tmp_path / "mixed")
    namespace: dict[str, Any] = {"__file__": str(tmp_path / "mixed.py"), "__name__": "mixed"}
    exec((tmp_path / "mixed.py").read_text(), namespace)
    torch.save(dict(other.tensors), tmp_path / "other.pt")
    images = own.images_for(own.MIXED)
    assert own.far_apart(namespace["load"](tmp_path / "other.pt")(images), other.net(images)) == 0
    torch.save(print, tmp_path / "evil.pt")
    with pytest.raises(Exception, match="weights_only"):
        namespace["load"](tmp_path / "evil.pt")


@pytest.mark.parametrize("name", target_names())
def test_every_target_is_written_as_a_formatter_would(own: Own, name: str, tmp_path: Path) -> None:
    arch = load_target(name, 10)
    described = own.describe(arch)
    text = source_of(fold(own.random_network(arch)), described)
    path = tmp_path / "module.py"
    path.write_text(text)
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run([*ruff, "format", "--check", "--isolated", str(path)], check=True)
    rules = ["--select", "B,E,F,I,UP,W,SIM", "--isolated", "--ignore", "B008"]
    subprocess.run([*ruff, "check", "--no-cache", *rules, str(path)], check=True)
    assert max(map(len, text.splitlines())) <= 88
    imported = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import | ast.ImportFrom)]
    roots = {
        (n.module or "") if isinstance(n, ast.ImportFrom) else n.names[0].name for n in imported
    }
    allowed = {"__future__", "collections.abc", "pathlib", "torch", "torch.nn", "safetensors.torch"}
    assert roots <= allowed


def test_a_module_holds_the_classes_that_it_needs(own: Own) -> None:
    def classes(name: str) -> set[str]:
        arch = load_target(name, 10)
        tree = ast.parse(source_of(fold(own.random_network(arch)), own.describe(arch)))
        return {node.name for node in tree.body if isinstance(node, ast.ClassDef)}

    assert classes("resnet50") == {"ConvAct", "Bottleneck", "Network"}
    assert "SqueezeExcite" not in classes("micro_10k")
    assert "SqueezeExcite" in classes("mbv3_w035")
    assert "SqueezeExcite" in classes("mbv3_small_w050")


def test_only_a_class_that_squeezes_can(own: Own) -> None:
    """Of mbv3_w035 the inverted residuals do, but not its depthwise separable row."""
    arch = load_target("mbv3_w035", 10)
    text = source_of(fold(own.random_network(arch)), own.describe(arch))
    before, _, after = text.partition("class InvertedResidual")
    assert "squeezed: int = 0" not in before and "squeezed: int = 0" in after


def test_names_of_classes_are_literals_and_nothing_more(own: Own) -> None:
    """Texts that would end a docstring, a line or a string."""
    names = ('"""', "\nimport os", 'a" + b', "\\", "\ud800", "Zürich", "{x}")
    origin = '"""\nraise SystemExit("run")\n\\'
    described = Description("mixed", origin, (0.286,), (0.353,), names)
    text = source_of(fold(own.random_network(own.MIXED)), described)
    namespace: dict[str, Any] = {"__file__": "mixed.py", "__name__": "mixed"}
    exec(text, namespace)
    assert namespace["CLASSES"] == names
    text.encode()  # a lone surrogate cannot be written as it is


@pytest.mark.parametrize("name", ["../x", "a b", "", "class", "9lives", "x" * 65, "ä", "a-b"])
def test_a_name_that_could_lead_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be letters, digits and underscores.*but got"):
        Description(name, "tests", (0.5,), (0.5,))


def test_statistics_must_be_one_a_channel(own: Own) -> None:
    with pytest.raises(ValueError, match=r"an entry for every channel, 1 or 3, but got 2 and 2"):
        Description("mixed", "tests", (0.5, 0.5), (0.5, 0.5))
    with pytest.raises(ValueError, match=r"an entry for every channel, 1 or 3, but got 1 and 3"):
        Description("mixed", "tests", (0.5,), (0.5,) * 3)
    coloured = Description("mixed", "tests", (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(ValueError, match="mixed reads 1 channels, but mean and std are of 3"):
        source_of(fold(own.random_network(own.MIXED)), coloured)


def test_tensors_of_another_network_are_refused(own: Own) -> None:
    text = source_of(fold(own.random_network(own.MIXED)), own.DESCRIBED)
    other = load_target("micro_3k", 10)
    with pytest.raises(ValueError, match="the tensors are not of mixed"):
        run_source(text, own.DESCRIBED, state_of(fold(own.random_network(other))))
