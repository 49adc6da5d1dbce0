"""What the tests of the command line share: a way to run it, tiny data, finished runs to copy."""

from __future__ import annotations

import json
import logging
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nasaug.__main__ import run
from nasaug.pipelines.plan import make_plan
from nasaug.setting import prepare
from nasaug.train_config import TrainConfig
from nasaug.training import ImageArray, RunFolder, fit, load_dataset

# Tiny, but every phase of a run takes place: four steps an epoch, wide and narrow helpers.
QUICK = (
    "--epochs=1",
    "--set=train.warmup_epochs=0",
    "--set=train.batch_size=64",
    "--set=train.bn_images=128",
)


class Done(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """All of stdout, which must be one line with one JSON value."""
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def said(self) -> str:
        """stderr in one line."""
        return " ".join(self.err.split())


Nasaug = Callable[..., Done]


@pytest.fixture(autouse=True)
def _one_thread_and_own_logging() -> Iterator[None]:
    """Bit equality is promised at equal threads; commands take over the root logger."""
    torch.set_num_threads(1)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def nasaug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Nasaug:
    """Runs a command in this process, in `tmp_path`. An exception that a user would see as a
    traceback reaches the test."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Done:
        capsys.readouterr()
        code = run(list(arguments))
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(code, out, err)

    return call


@pytest.fixture
def stopped_after_a_cell(
    nasaug: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """`stopped_after_a_cell(*arguments)` interrupts a command of many runs once the first is done,
    and returns the path of its result."""
    from nasaug.comparing.runner import Runner

    def stopped(*arguments: str) -> Path:
        whole, run = [], Runner.run

        def run_one(self: Any, watch: Any) -> bool:
            def first(cell: Any, plan: Any) -> None:
                whole.append(self.store.folder(cell.identity) / "result.json")
                raise KeyboardInterrupt

            return run(self, first)

        with monkeypatch.context() as patch:
            patch.setattr(Runner, "run", run_one)
            assert nasaug(*arguments).code == 130
        return whole[0]

    return stopped


class Shell:
    """Runs commands as processes of their own, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def nasaug(self, *arguments: str) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-m", "nasaug", *arguments)

    def python(self, program: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-c", program, *arguments, **environment)

    @staticmethod
    def finish(process: subprocess.Popen[str]) -> Done:
        out, err = process.communicate(timeout=120)
        return Done(process.returncode, out, err)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


def _write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(head + array.tobytes())


@pytest.fixture(scope="session")
def clothes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 320 training and 200 test images of Fashion-MNIST as IDX files."""
    folder = tmp_path_factory.mktemp("clothes")
    mini = load_dataset("fashion-mnist-mini")
    for name, part, count in (("train", mini.train, 320), ("t10k", mini.test, 200)):
        assert isinstance(part, ImageArray)
        _write_idx(folder / f"{name}-images-idx3-ubyte", part.images[:count, 0].numpy())
        _write_idx(
            folder / f"{name}-labels-idx1-ubyte", part.labels[:count].numpy().astype(np.uint8)
        )
    return folder


@pytest.fixture(scope="session")
def data(clothes: Path) -> tuple[str, ...]:
    """The options that choose the tiny data set."""
    return ("--data=fashion-mnist", f"--data-dir={clothes}")


@pytest.fixture(scope="session")
def quick(data: tuple[str, ...]) -> tuple[str, ...]:
    """The options of a search or training of the smallest target that ends within a second."""
    return ("--target=micro_10k", *data, *QUICK)


@pytest.fixture
def image_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes an image folder of one-coloured 32 x 32 PNG files."""

    def write(name: str, classes: tuple[str, ...] = ("cat", "dog"), count: int = 8) -> Path:
        rng = np.random.default_rng(0)
        for part in ("train", "test"):
            for label in classes:
                folder = tmp_path / name / part / label
                folder.mkdir(parents=True)
                for index in range(count):
                    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
                    Image.new("RGB", (32, 32), colour).save(folder / f"{index}.png")
        return tmp_path / name

    return write


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, quick: tuple[str, ...]) -> Path:
    """A folder with a finished search and, made after it, a training inside its winner."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run(["search", *quick, "--budget=2M", "--trials=3", "--out=searched"]) == 0
        assert run(["train", *quick, "--out=trained"]) == 0
    return folder


@pytest.fixture
def searched(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished search, in `tmp_path`."""
    return Path(shutil.copytree(finished / "searched", tmp_path / "searched"))


@pytest.fixture
def trained(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished training, in `tmp_path`."""
    return Path(shutil.copytree(finished / "trained", tmp_path / "trained"))


@pytest.fixture
def best(searched: Path) -> dict[str, Any]:
    """What the finished search found."""
    found: dict[str, Any] = json.loads((searched / "best.json").read_text())
    return found


@pytest.fixture
def weights_in() -> Callable[[Path | str], bytes]:
    """Reads a run's exported weights, the file as it is."""
    return lambda run: (Path(run) / "weights.safetensors").read_bytes()


@pytest.fixture
def files_below(tmp_path: Path) -> Callable[[], dict[str, bytes]]:
    """All files below `tmp_path` with their content; empty folders end in a slash."""

    def snapshot() -> dict[str, bytes]:
        found = {}
        for path in tmp_path.rglob("*"):
            name = str(path.relative_to(tmp_path))
            if path.is_file():
                found[name] = path.read_bytes()
            elif not any(path.iterdir()):
                found[f"{name}/"] = b""
        return found

    return snapshot


class _Killed(Exception):
    pass


@pytest.fixture
def whole_and_resumed(tmp_path: Path) -> Callable[..., list[dict[str, Tensor]]]:
    """The weights of a training of a configuration, and of the same that was killed and resumed."""

    def trained(config: TrainConfig, name: str, kill: bool) -> dict[str, Tensor]:
        setting = prepare(config)
        plan, run = make_plan(config, setting, tmp_path / name), RunFolder(tmp_path / name)

        def watch(step: int, steps: int, values: object) -> None:
            if kill and step == 3:
                raise _Killed

        resume = run.checkpoints.exists()
        net = fit(
            plan.net, plan.step, setting.training, config.train, run, watch=watch, resume=resume
        )
        return dict(net.state_dict())

    def both(config: TrainConfig) -> list[dict[str, Tensor]]:
        with pytest.raises(_Killed):
            trained(config, "killed", kill=True)
        return [trained(config, name, kill=False) for name in ("whole", "killed")]

    return both
