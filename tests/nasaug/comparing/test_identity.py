"""What a cell is known by: all that decides its numbers or seconds; no path, no name of a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nasaug.comparing.cells import Arm, Cells
from nasaug.comparing.identity import identity
from nasaug.supernet import load_target
from nasaug.train_config import TrainConfig

PATHLESS = Path("/nowhere")


def identity_of(
    kit: Any,
    method: dict[str, Any] | None = None,
    target: str = "micro_10k",
    lr: float = 0.1,
    seed: int = 0,
    epochs: int = 10,
    root: Path = PATHLESS,
    name: str = "netaug",
    **keys: Any,
) -> str:
    """Of a final run of a method, NetAug's unless given."""
    given = {"method": "netaug", "largest": "published"} if method is None else method
    study = kit.study(methods={"baseline": {}, name: given}, targets=[target], **keys)
    found: str = Cells(study, root).final(Arm(target, name, epochs), lr, seed).identity
    return found


def test_it_is_readable(kit: Any) -> None:
    assert re.fullmatch(r"micro_10k-netaug-e10-lr0.1-s0-[0-9a-f]{8}", identity_of(kit))


def test_what_a_study_calls_it_does_not_matter(kit: Any) -> None:
    assert identity_of(kit, name="mine") == identity_of(kit)
    more = {"against": "baseline", "seeds": 7, "equal": ["macs"]}
    spelt = {"method": "netaug", "largest": "published", **more}
    assert identity_of(kit, spelt, question="Another?", equal=["time"]) == identity_of(kit)


def test_a_tuning_run_and_a_final_one_are_one_cell(kit: Any) -> None:
    cells = Cells(kit.study(), PATHLESS)
    arm = Arm("micro_10k", "netaug", 10)
    (trial,) = cells.tuning(arm, 0.1)
    assert trial.identity == identity_of(kit, seed=trial.seed)
    assert trial.name == f"tune-{cells.final(arm, 0.1, trial.seed).name}"


def base(data: dict[str, Any] | None = None, **train: Any) -> dict[str, Any]:
    """The base of `kit.study`, with more."""
    return {
        "in_channels": 1,
        "data": {"name": "fashion-mnist-mini", **(data or {})},
        "train": {"epochs": 10, "warmup_epochs": 2, **train},
    }


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"lr": 0.2},
        {"target": "micro_40k"},
        {"threads": 2},
        {"method": {"method": "baseline"}},
        {"method": {"method": "netaug", "largest": "published", "netaug": {"alpha": 0.5}}},
        {"method": {"method": "netaug", "largest": "published", "regularise": {"dropout": 0.1}}},
        {"epochs": 11},
        {"base": base(warmup_epochs=1)},
        {"base": base(batch_size=65)},
        {"base": base(data={"flip": False})},
        {"base": base(data={"name": "fashion-mnist"})},
        {"base": base(data={"imbalance": 10})},
        {"base": {**base(), "resolution": 28}},
        {"base": {**base(), "device": "cpu"}},
    ],
)
def test_what_decides_is_part_of_it(kit: Any, other: dict[str, Any]) -> None:
    assert identity_of(kit, **other) != identity_of(kit)


def test_where_data_and_caches_lie_is_not(kit: Any) -> None:
    assert identity_of(kit, base=base(data={"dir": "/data", "download": True})) == identity_of(kit)
    teacher = {"method": "kd", "distill": {"teacher": "nowhere"}}
    cached = {"method": "kd", "distill": {"teacher": "nowhere", "cache_dir": "/cache"}}
    assert identity_of(kit, teacher) == identity_of(kit, cached)


def test_an_option_that_a_later_release_adds_leaves_cells_known_where_it_is_off() -> None:
    config = TrainConfig(target="micro_10k")
    inner = {**config.train.model_dump(mode="json"), "new": None, "section": {"newer": None}}

    class Later(TrainConfig):
        added: int | None = None

        def model_dump(self, **options: Any) -> dict[str, Any]:
            return {**super().model_dump(**options), "train": inner}

    Later.__name__ = "TrainConfig"
    here = Path("cells")
    assert identity(Later(target="micro_10k"), here) == identity(config, here)
    assert identity(Later(target="micro_10k", added=1), here) != identity(config, here)


def test_runs_before_count_by_what_they_are(kit: Any) -> None:
    method = {"method": "netaug", "largest": "before:it"}

    def built(budget: str, root: Path = PATHLESS, name: str = "it") -> str:
        before = {name: {"search": {"budget": budget}}}
        return identity_of(kit, {**method, "largest": f"before:{name}"}, before=before, root=root)

    assert built("2M") == built("2M", Path("/elsewhere")) == built("2M", name="searched")
    assert built("2M") != built("3M")


def test_a_search_is_readable_too(kit: Any) -> None:
    before = {"it": {"search": {"budget": "2M", "train": {"epochs": 3, "lr": 0.4}}}}
    methods = {"baseline": {}, "netaug": {"largest": "before:it"}}
    cell = Cells(kit.study(methods=methods, before=before), PATHLESS).before("it", "micro_10k")
    assert re.fullmatch(r"micro_10k-search-e3-lr0.4-s0-[0-9a-f]{8}", cell.identity)


def written(folder: Path, name: str, text: str) -> str:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / name).write_text(text)
    return str(folder / name)


def test_tables_count_by_their_content(kit: Any, tmp_path: Path) -> None:
    table = yaml.safe_dump(load_target("micro_10k").to_dict())
    here, there = (written(tmp_path / name, "mine.yaml", table) for name in ("here", "there"))
    first = identity_of(kit, target=here)
    assert first.startswith("mine-netaug-e10")
    assert identity_of(kit, target=there) == first
    assert identity_of(kit, target=written(tmp_path / "third", "other.yaml", table)) != first
    written(tmp_path / "there", "mine.yaml", f"{table}\n# edited")
    assert identity_of(kit, target=there) != first


@pytest.mark.parametrize(
    ("method", "name"),
    [
        ({"method": "netaug", "largest": "{folder}"}, "best.json"),
        ({"method": "netaug", "largest": "{folder}/best.json"}, "best.json"),
        ({"method": "kd", "distill": {"teacher": "{folder}"}}, "weights.safetensors"),
        ({"method": "kd", "distill": {"teacher": "timm:resnet18@{folder}/mine.pt"}}, "mine.pt"),
    ],
)
def test_files_that_a_method_reads_count_by_their_content(
    kit: Any, tmp_path: Path, method: dict[str, Any], name: str
) -> None:
    def found(folder: str, text: str) -> str:
        written(tmp_path / folder, name, text)
        keys = yaml.safe_load(yaml.safe_dump(method).replace("{folder}", str(tmp_path / folder)))
        return identity_of(kit, keys)

    assert found("here", "one") == found("there", "one") != found("here", "another")
