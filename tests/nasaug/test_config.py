"""Configurations: files, `--set`, options, and every mistake in them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nasaug.config import RunConfig, SearchConfig, dump_config, load_config
from nasaug.train_config import TrainConfig
from nasaug.training import Recipe

Nasaug = Callable[..., Any]
KINDS = st.sampled_from((SearchConfig, TrainConfig))
KEYS = (
    "target", "resolution", "data", "data.name", "data.validation", "data.workers", "train",
    "train.epochs", "train.lr", "train.clip_norm", "train.amp", "seed", "device", "threads",
    "budget", "trials", "sampler", "storage", "space", "space.width", "space.divisor", "method",
    "netaug", "netaug.alpha", "netaug.init", "largest", "init", "direction", "space.table",
    "train.lr.rate", "trian.lr", "",
)  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(
        ("null", "true", "[]", "{}", "[1, 2]", "{a: 1}", "down", "micro_down",
         ".nan", ".inf", "-.inf", "1e400", "0x1F",
         "2020-01-01", "'", "[", "{", "!!python/object:os.system", "&a [*a]", "*b", "300M", "%",
         "- 1", "? x", "a: b: c", "\t", "---", "...", "!!binary aGk=", "!!set {a}", "<<: 1")
    ),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(KINDS, st.lists(st.text(max_size=30), max_size=3))
def test_any_text_is_a_setting_or_a_mistake(kind: type[RunConfig], sets: list[str]) -> None:
    _load_or_say(kind, sets)


@settings(max_examples=200, deadline=None)
@given(KINDS, st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=4))
@example(SearchConfig, [("space", "{}"), ("space.width", "&a [*a]")])
@example(SearchConfig, [("space.width", "3"), ("space.width.x", "1")])
@example(TrainConfig, [("train", "null"), ("train.lr", "0.1")])
def test_any_value_of_a_key_is_a_setting_or_a_mistake(
    kind: type[RunConfig], pairs: list[tuple[str, str]]
) -> None:
    _load_or_say(kind, [f"{key}={value}" for key, value in pairs])


@settings(max_examples=120, deadline=None)
@given(KINDS, st.one_of(st.text(max_size=60), st.binary(max_size=60)))
def test_any_file_is_a_configuration_or_a_mistake(
    kind: type[RunConfig], content: str | bytes
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_bytes(
            content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        )
        try:
            load_config(kind, str(path), [], {})
        except ValueError as error:
            assert str(error)


@pytest.mark.parametrize(
    "value", ["!!timestamp x", "!!bool x", "2020-13-45", "!!int x", "[" * 2000, "9" * 5000]
)
@pytest.mark.parametrize("in_file", [False, True])
def test_what_yaml_cannot_construct_is_named(value: str, in_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(f"seed: {value}\n")
    with pytest.raises(ValueError, match=r"config\.yaml" if in_file else "seed"):
        load_config(
            TrainConfig, str(path) if in_file else None, [] if in_file else [f"seed={value}"], {}
        )


def _load_or_say(kind: type[RunConfig], sets: list[str]) -> None:
    """Either a configuration that survives being saved, or a message."""
    try:
        config = load_config(kind, None, sets, {})
    except ValueError as error:
        assert str(error)
        return
    assert _saved_and_loaded(config) == config


def _saved_and_loaded(config: RunConfig) -> RunConfig:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "config.yaml")
        path.write_text(dump_config(config), encoding="utf-8")
        return load_config(type(config), str(path), [], {})


POSITIVE = st.floats(1e-30, 1, exclude_min=True, exclude_max=True)
FACTORS = st.none() | st.lists(st.floats(1, 16), max_size=4)


@settings(max_examples=120, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "target": st.text(max_size=10),
            "data": st.fixed_dictionaries(
                {
                    "name": st.text(max_size=10),
                    "dir": st.none() | st.text(max_size=10),
                    "validation": POSITIVE,
                    "flip": st.booleans(),
                }
            ),
            "train": st.fixed_dictionaries(
                {
                    "epochs": st.integers(1, 10_000),
                    "lr": POSITIVE,
                    "clip_norm": st.none() | POSITIVE,
                    "ema": st.none() | POSITIVE,
                    "amp": st.sampled_from(("auto", "off", "bf16")),
                }
            ),
            "seed": st.integers(0, 2**63 - 1),
            "space": st.fixed_dictionaries({"width": FACTORS, "expand": FACTORS}),
            "budget": st.integers(1, 10**18),
            "storage": st.none() | st.text(max_size=20).map("sqlite:///".__add__),
        }
    )
)
def test_a_saved_configuration_is_read_back_equal(data: dict[str, Any]) -> None:
    config = SearchConfig.model_validate(data)
    assert _saved_and_loaded(config) == config


def test_later_sources_win(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("seed: 1\nbudget: 100M\ntrials: 7\ntrain: {lr: 0.3, epochs: 9}\n")
    options = {"seed": 3, "train.epochs": 5, "trials": None}
    config = load_config(SearchConfig, str(path), ["seed=2", "train.lr=1e-3"], options)
    assert (config.seed, config.train.epochs, config.train.lr) == (3, 5, 0.001)
    assert (config.budget, config.trials) == (100_000_000, 7)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("# nothing yet\n")
    assert load_config(TrainConfig, str(path), [], {}) == TrainConfig()


@pytest.mark.parametrize("setting", ["train.lr=0.1", "train.epochs=2"])
def test_setting_a_default_again_changes_nothing(setting: str) -> None:
    assert load_config(SearchConfig, None, [setting], {}) == SearchConfig()


@pytest.mark.parametrize("kind", [SearchConfig, TrainConfig])
def test_every_number_of_a_recipe_can_be_set(kind: type[RunConfig]) -> None:
    recipe = kind().train
    for key, value in recipe.model_dump().items():
        loaded = load_config(kind, None, [f"train.{key}={'null' if value is None else value}"], {})
        assert getattr(loaded.train, key) == value
    assert isinstance(recipe, Recipe)


@pytest.mark.parametrize("command", ["search", "train"])
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "train.lrr=0.1"], ["unknown key 'train.lrr'", "did you mean 'train.lr'"]),
        (["--set", "epochs=3"], ["unknown key 'epochs'", "'train.epochs'"]),
        (["--set", "trian.lr=1"], ["unknown key 'trian.lr'", "did you mean 'train.lr'"]),
        (["--set", "train.lr"], ["--set takes KEY=VALUE", "train.lr=0.2", "'train.lr'"]),
        (["--set", "=3"], ["--set takes KEY=VALUE", "'=3'"]),
        (["--set", ""], ["--set takes KEY=VALUE", "''"]),
        (["--set", "train.lr=abc"], ["train.lr must be", "number", "'abc'"]),
        (["--set", "train.lr=-1"], ["train.lr must be greater than 0", "-1"]),
        (["--set", "train.lr=[0.1]"], ["train.lr must be", "number", "[0.1]"]),
        (["--set", "train.lr={"], ["train.lr", "'{'", "not a value"]),
        (["--set", "train.lr.x=1"], ["train.lr"]),
        (["--set", "train=5"], ["train must be", "5"]),
        (["--set", "train.epochs=2.5"], ["train.epochs must be", "integer", "2.5"]),
        (["--set", "train.amp=fp8"], ["train.amp must be", "'auto'", "'bf16'", "'fp8'"]),
        (["--set", "data.validation=1"], ["data.validation must be less than 1", "1"]),
        (["--set", "data.flip=maybe"], ["data.flip must be", "boolean", "'maybe'"]),
        (["--set", "in_channels=2"], ["in_channels must be", "1 or 3", "2"]),
        (["--set", "seed=-1"], ["seed must be greater than or equal to 0", "-1"]),
        (["--set", "seed="], ["seed must be", "integer", "None"]),
        (["--set", "target=[a]"], ["target must be", "string", "['a']"]),
        (["--epochs", "0"], ["train.epochs must be greater than or equal to 1", "0"]),
        (["--device", "gpu"], ["device must be", "'auto', 'cpu' or 'cuda'", "'gpu'"]),
        (["--config", "missing.yaml"], ["missing.yaml", "No such file"]),
        (["--config", "unknown.yaml"], ["unknown key 'train.epoch'", "'train.epochs'"]),
        (["--config", "wrong.yaml"], ["train.lr must be", "'fast'"]),
        (["--config", "broken.yaml"], ["broken.yaml is not a YAML file", "line 1"]),
        (["--config", "binary.yaml"], ["binary.yaml is not a YAML file"]),
        (["--config", "list.yaml"], ["list.yaml must hold keys and values", "list"]),
        (["--config", "empty_section.yaml", "--set", "train.lr=1"], ["train is None"]),
        (["--config", "folder"], ["folder", "is a directory"]),
    ],
)
def test_mistakes(
    command: str,
    arguments: list[str],
    words: list[str],
    nasaug: Nasaug,
    files_below: Callable[[], dict[str, bytes]],
) -> None:
    Path("unknown.yaml").write_text("train: {epoch: 3}\n")
    Path("wrong.yaml").write_text("train: {lr: fast}\n")
    Path("broken.yaml").write_text("train: [1, 2\n")
    Path("binary.yaml").write_bytes(b"\x80\x81\xff")
    Path("list.yaml").write_text("- 1\n- 2\n")
    Path("empty_section.yaml").write_text("train:\n")
    Path("folder").mkdir()
    before = files_below()
    done = nasaug(command, *arguments, "--out=here")
    assert done.code == 2
    assert done.out == ""
    for word in words:
        assert word in done.said
    assert files_below() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["search", "--sampler", "evoluton"], ["sampler", "'evoluton'", "'evolution'"]),
        (["search", "--set", "sampler=xyz"], ["sampler", "'xyz'", "choose one of"]),
        (["search", "--objectives", "accuracy,mac"], ["objectives", "'mac'", "'macs'"]),
        (["search", "--objectives", "latency"], ["latency_table", "nasaug latency-table"]),
        (["search", "--budget", "3M..2M"], ["from the lower to the higher", "'3M..2M'"]),
        (["search", "--max-memory", "12QB"], ["max_memory", "256KB", "'12QB'"]),
        (["search", "--max-flash", "1XB"], ["max_flash", "256KB", "'1XB'"]),
        (["search", "--max-params", "many"], ["max_params", "a number of parameters", "'many'"]),
        (["search", "--set", "supernet.method=sandwitch"], ["'sandwitch'", "'sandwich'"]),
        (["search", "--workers", "0"], ["workers must be greater than or equal to 1", "0"]),
        (["search", "--budget", "300X"], ["budget", "300M", "units K, M, G, T", "'300X'"]),
        (["search", "--budget", "0"], ["budget", "from 1", "'0'"]),
        (["search", "--budget", "-3M"], ["budget", "'-3M'"]),
        (["search", "--budget", ""], ["budget", "''"]),
        (["search", "--set", "budget=[1]"], ["budget", "'[1]'"]),
        (["search", "--trials", "0"], ["trials must be greater than or equal to 1", "0"]),
        (["search", "--set", "method=netaug"], ["unknown key 'method'"]),
        (["train", "--method", "netoug"], ["unknown method 'netoug'", "did you mean 'netaug'"]),
        (["train", "--init", "super"], ["--init super: ", "does not exist", "fresh or supernet"]),
        (["train", "--set", "netaug.init=super"], ["netaug.init must be", "'fresh' or 'supernet'"]),
        (["train", "--set", "netaug.alpha=-1"], ["netaug.alpha must be", "equal to 0", "-1"]),
        (["train", "--set", "budget=3M"], ["unknown key 'budget'"]),
    ],
)
def test_mistakes_of_one_command(arguments: list[str], words: list[str], nasaug: Nasaug) -> None:
    done = nasaug(*arguments, "--out=here")
    assert done.code == 2
    assert done.out == ""
    for word in words:
        assert word in done.said
    assert not Path("here").exists()


def test_on_and_no_are_words(tmp_path: Path) -> None:
    """YAML 1.1 takes them for truth values, and a key called `on` would be lost."""
    path = tmp_path / "search.yaml"
    path.write_text("race:\n  on: false\nstudy: no\n")
    config = load_config(SearchConfig, str(path), [], {})
    assert config.race.on is False
    assert config.study == "no"
    config = load_config(SearchConfig, None, ["race.on=False", "data.flip=yes"], {})
    assert (config.race.on, config.data.flip) == (False, True)
