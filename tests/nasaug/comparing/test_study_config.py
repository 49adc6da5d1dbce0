"""What a study may say: seeds, methods, grids; what is wrong is said with its key and a remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nasaug.comparing.checks import check_cells
from nasaug.comparing.plan import Planner
from nasaug.comparing.store import Store
from nasaug.comparing.studies import built_in_studies, dump_study, load_study, study_path
from nasaug.study_config import NOT_RUN, Study

TINY: dict[str, Any] = {
    "question": "Does it help?",
    "targets": ["micro_10k"],
    "methods": {"baseline": {}, "netaug": {"largest": "published"}},
}


@pytest.fixture
def load(tmp_path: Path) -> Any:
    """Loads TINY with other keys, from a file."""

    def write(sets: tuple[str, ...] = (), **keys: Any) -> Study:
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump(TINY | keys))
        return load_study(str(path), sets)[1]

    return write


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"seeds": 0}, "seeds: seeds must be a count from 1 to 1000 or a list"),
        ({"seeds": []}, r"but got \[\]"),
        ({"seeds": [1, 1]}, r"but got \[1, 1\]"),
        ({"seeds": True}, "but got True"),
        ({"seeds": [-1]}, r"but got \[-1\]"),
        ({"tune": {"grid": []}}, r"tune.grid: a grid is one or more .* but got \[\]"),
        ({"tune": {"grid": [0.1, 0.1]}}, "different learning rates above 0"),
        ({"tune": {"grid": [0.0]}}, r"above 0 and up to 100, but got \[0.0\]"),
        ({"tune": {"gird": [0.1]}}, "unknown key 'tune.gird': did you mean 'tune.grid'"),
        ({"tune": {"limit": 0}}, "tune.limit must be greater than or equal to 1, but got 0"),
        ({"baseline": "base"}, "baseline 'base' is none of the methods: did you mean 'baseline'"),
        ({"methods": {}}, "methods must hold at least one name, but is empty"),
        ({"methods": {"baseline": {}, "a/b": {}}}, "letters, digits and .* but got 'a/b'"),
        ({"methods": {"baseline": {}, "mine": {}}}, "methods.mine: .* needs a key method"),
        (
            {"methods": {"baseline": {}, "mine": {"method": "netaugg"}}},
            "methods.mine.method: unknown 'netaugg': did you mean 'netaug'",
        ),
        (
            {"methods": {"baseline": {}, "netaug": {"seeds": 0}}},
            "^methods.netaug.seeds: seeds must be a count",
        ),
        (
            {"methods": {"baseline": {}, "netaug": {"equal": ["mac"]}}},
            "methods.netaug.equal.0 must be 'epochs', 'macs' or 'time', but got 'mac'",
        ),
        (
            {"methods": {"baseline": {}, "netaug": {"against": "netaug"}}},
            "methods.netaug.against: no other method is 'netaug'",
        ),
        (
            {"methods": {"baseline": {}, "netaug": {"targets": ["micro_40k"]}}},
            "methods.netaug.targets: unknown 'micro_40k': did you mean 'micro_10k'",
        ),
        (
            {"methods": {"baseline": {}, "netaug": {"counts": ["search"]}}},
            "methods.netaug.counts: unknown 'search'",
        ),
        (
            {
                "targets": ["micro_10k", "micro_40k"],
                "methods": {"baseline": {"targets": ["micro_10k"]}, "netaug": {}},
            },
            "add them to methods.baseline.targets",
        ),
        (
            {"methods": {"baseline": {}, "netaug": {"seed": 3}}},
            "methods.netaug.seed is decided by seeds; leave it out",
        ),
        (
            {"methods": {"baseline": {}, "netaug": {"train": {"epochs": 3}}}},
            "methods.netaug.train.epochs is decided by lengths",
        ),
        ({"lengths": []}, r"lengths: lengths are one or more .* from 1 to 10,000, but got \[\]"),
        ({"lengths": [5, 5]}, r"different numbers of epochs, .* but got \[5, 5\]"),
        ({"lengths": [0, 5]}, r"from 1 to 10,000, but got \[0, 5\]"),
        ({"lengths": ["long"]}, "lengths.0 must be a valid integer"),
        (
            {"lengths": [5], "base": {"train": {"epochs": 5}}},
            "base.train.epochs is decided by lengths; leave it out of base",
        ),
        (
            {"lengths": [5, 9], "methods": {"baseline": {}, "netaug": {"lengths": [5, 7]}}},
            r"methods.netaug.lengths must be among .*, \[5, 9\], but got \[5, 7\]; add them",
        ),
        (
            {"methods": {"baseline": {}, "netaug": {"lengths": [5]}}},
            r"among the study's lengths, \[\], but got \[5\]; add them to lengths",
        ),
        (
            {"lengths": [5, 9], "methods": {"baseline": {"lengths": [9]}, "netaug": {}}},
            "for its lengths too; add them to methods.baseline.lengths",
        ),
        ({"tune": {"share": 0}}, "tune.share must be greater than 0, but got 0"),
        ({"tune": {"share": 1.5}}, "tune.share must be less than or equal to 1, but got 1.5"),
        ({"base": {"train": {"lr": 0.1}}}, "base.train.lr is decided by tune.grid"),
        ({"base": {"method": "netaug"}}, "base.method is decided by methods"),
        ({"targets": []}, "targets must hold at least one name"),
        ({"targets": ["a/x.yaml", "b/x.yaml"]}, "must differ in their names, but 'x' is there"),
        ({"before": {"it": {}}}, "before.it: give the keys of one run: train or search"),
        (
            {"before": {"it": {"search": {}, "per_target": {"mbv2_tiny": {}}}}},
            "before.it.per_target: 'mbv2_tiny' is no target",
        ),
        ({"workers": 0}, "workers must be greater than or equal to 1"),
        ({"qestion": "?"}, "unknown key 'qestion': did you mean 'question'"),
    ],
)
def test_mistakes_are_named(load: Any, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load(**keys)


def test_an_unknown_study_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown study 'mikro': did you mean 'micro'.*YAML"):
        study_path("mikro")
    with pytest.raises(FileNotFoundError):
        load_study("nowhere.yaml")


@given(st.text(max_size=20))
def test_any_name_is_a_study_or_a_mistake(name: str) -> None:
    if "\0" in name:
        return
    try:
        study_path(name)
    except ValueError as error:
        assert "unknown study" in str(error)


def test_seeds_are_a_count_or_a_list(load: Any) -> None:
    assert load(seeds=3).seeds == (0, 1, 2)
    assert load(seeds=[7, 2]).seeds == (7, 2)
    methods = {"baseline": {"seeds": 5}, "netaug": {}}
    study = load(seeds=2, methods=methods)
    assert (study.seeds_of("baseline"), study.seeds_of("netaug")) == ((0, 1, 2, 3, 4), (0, 1))


def test_a_method_is_its_name_unless_it_says(load: Any) -> None:
    methods = {"baseline": {}, "mine": {"method": "netaug", "against": "baseline", "seeds": 1}}
    study = load(methods=methods)
    assert study.keys("baseline") == {"method": "baseline"}
    assert study.keys("mine") == {"method": "netaug"}
    assert study.against("baseline") is None
    assert study.equals("mine") == ("epochs", "macs", "time")


def test_lengths_are_sorted_and_a_method_may_have_fewer(load: Any) -> None:
    methods = {"baseline": {}, "netaug": {"lengths": [20, 5]}}
    study = load(lengths=[20, 5, 10], methods=methods)
    assert (study.lengths, study.lengths_of("baseline")) == ((5, 10, 20), (5, 10, 20))
    assert study.lengths_of("netaug") == (5, 20)
    assert load().lengths_of("netaug") is None


def test_set_reaches_every_key(load: Any) -> None:
    study = load(("seeds=4", "base.train.epochs=7", "methods.netaug.netaug.alpha=0.5"))
    assert (len(study.seeds), study.base["train"]["epochs"]) == (4, 7)
    assert study.keys("netaug")["netaug"] == {"alpha": 0.5}


def test_a_study_survives_being_written(load: Any, tmp_path: Path) -> None:
    study = load(before={"it": {"search": {"budget": "2M"}}}, tune={"grid": [0.4, 0.1]})
    path = tmp_path / "again.yaml"
    path.write_text(dump_study(study))
    name, again = load_study(str(path))
    assert (name, again) == ("again", study)
    assert again.tune.grid == (0.1, 0.4)


WANTED = {
    "micro", "tiny_vs_large", "r_and_s", "number_sampled", "mixing", "distillation",
    "netdistiller", "netbooster", "regularisation", "pruning", "unsharing", "sorting",
    "width_vs_depth", "imbalance", "init", "searched_vs_fixed",
}  # fmt: skip


def test_the_studies_that_are_promised_are_there() -> None:
    assert set(built_in_studies()) >= WANTED


@pytest.mark.parametrize("name", sorted(built_in_studies()))
def test_every_cell_of_a_built_in_study_is_legal(name: str, tmp_path: Path) -> None:
    # Whoever runs the tests need not have the full data set.
    study = load_study(name, (), {"base.data.name": "fashion-mnist-mini"})[1]
    planner = Planner(study, Store(tmp_path, "code"))
    check_cells(planner)
    plan = planner.plan()
    assert plan.cells
    for cell in plan.cells:
        assert cell.config.target


@pytest.mark.parametrize("name", sorted(built_in_studies()))
def test_a_built_in_study_opens_with_its_question_and_ends_with_its_answer(name: str) -> None:
    text = built_in_studies()[name].read_text()
    study = load_study(name)[1]
    first, command = text.splitlines()[:2]
    assert first == f"# {study.question}"
    assert command.startswith(f"#   nasaug compare {name}")
    assert study.question.endswith("?")
    assert list(yaml.safe_load(text))[-1] == "answer"
    assert study.answer == NOT_RUN or len(study.answer) > 20
