"""The real backends, on a few rows: what they time, and that they leave the process as it was."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

from nasaug.devices import BACKENDS, conditions_of, networks_covering, open_backend, rows_of
from nasaug.devices.machine import processor
from nasaug.supernet import SearchSpace, load_target


@pytest.fixture(params=BACKENDS)
def backend_name(request: pytest.FixtureRequest) -> str:
    if request.param == "onnxruntime":
        pytest.importorskip("onnx", reason="the extra [onnx] is not installed")
        pytest.importorskip("onnxruntime", reason="the extra [onnx] is not installed")
    return str(request.param)


def test_a_sweep_times_every_wanted_row(space: SearchSpace, backend_name: str) -> None:
    rows = rows_of(space)
    wanted = random.Random(0).sample(sorted(rows, key=str), 6)
    with open_backend(backend_name) as backend:
        swept = list(backend.sweep(space, wanted, random.Random(0)))
        assert min(backend.empty()) >= 0
    found = {key for bursts in swept for key in bursts}
    assert set(wanted) <= found <= rows
    assert all(len(b) >= 3 and min(b) > 0 for bursts in swept for b in bursts.values())


def test_rows_and_networks_are_in_one_unit(space: SearchSpace, backend_name: str) -> None:
    """The rows of a network take about as long as the network, both at their fastest."""
    arch = space.target.canonical()
    keys = set(zip(arch.rows, arch.widths_in, arch.sizes_in, strict=True))
    with open_backend(backend_name) as backend:
        fastest: dict[object, int] = {}
        for _ in range(3):
            empty = min(backend.empty())
            for bursts in backend.sweep(space, [k for k in rows_of(space) if k in keys], _rng()):
                for key, burst in bursts.items():
                    fastest[key] = min(min(burst) - empty, fastest.get(key, 10**12))
        whole = min(min(backend.network(arch)) for _ in range(3))
    assert 0.2 * whole < sum(fastest[key] for key in keys) < 3 * whole


def _rng() -> random.Random:
    return random.Random(0)


def test_the_versions_are_told(backend_name: str) -> None:
    with open_backend(backend_name) as backend:
        name, _, number = backend.versions.partition(" ")
        assert name == backend_name
        assert number[0].isdigit()


def test_torch_gets_its_threads_and_gives_them_back() -> None:
    assert torch.get_num_threads() == 1
    with open_backend("torch", 2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 1
    with pytest.raises(KeyboardInterrupt), open_backend("torch", 2):
        raise KeyboardInterrupt
    assert torch.get_num_threads() == 1


def test_torch_times_whole_networks_of_the_space(space: SearchSpace) -> None:
    """Rows come from inside networks, so that more rows than the wanted one are timed."""
    wanted = [max(rows_of(space), key=str)]
    networks = list(networks_covering(space, wanted, random.Random(3)))
    with open_backend("torch") as backend:
        (bursts,) = backend.sweep(space, wanted, random.Random(3))
    (arch,) = networks
    assert bursts.keys() == set(zip(arch.rows, arch.widths_in, arch.sizes_in, strict=True))


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_said_with_the_remedy(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = rf"needs two more packages: pip install 'nasaug\[onnx\]' \(.*{package}"
    with pytest.raises(ValueError, match=said), open_backend("onnxruntime"):
        pass


def test_an_unknown_backend_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown backend 'onnx': did you mean 'onnxruntime'"):
        open_backend("onnx")
    with pytest.raises(ValueError, match="threads must be at least 1, but got 0"):
        open_backend("torch", 0)


def test_the_processor_has_a_name(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some  CPU @ 2.4GHz: fast\nflags\t: x\n")
    assert processor(info) == "Some CPU @ 2.4GHz: fast"
    info.write_text("processor\t: 0\n")
    assert processor(info)
    assert processor(tmp_path / "missing")


def test_conditions_are_facts_of_a_table() -> None:
    conditions = conditions_of("torch", "torch 2", 4)
    assert conditions.keys() == {"device", "backend", "threads", "batch", "versions"}
    assert conditions["threads"] == "4"


def test_every_named_target_can_be_timed_whole(backend_name: str) -> None:
    with open_backend(backend_name) as backend:
        for name in ("mbv3_w035", "resnet50"):
            assert min(backend.network(load_target(name, 10, resolution=32))) > 0
