"""What the README and docs say holds: the Python example runs, the commands and links exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from nasaug.cli import COMMANDS
from nasaug.supernet import Architecture, load_space, macs

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_python_example_trains_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[0].read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    scores = eval(capsys.readouterr().out)
    assert scores["top1"] > 0.3
    tiny = names["tiny"]
    assert sum(p.numel() for p in tiny.parameters()) == 9_994  # type: ignore[attr-defined]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_the_docs_name_exist(page: Path) -> None:
    for command in re.findall(r"(?:^|`)\$?\s*nasaug ([a-z-]+)", page.read_text(), re.MULTILINE):
        assert command in COMMANDS, f"{page.name} names nasaug {command}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_example_of_a_users_table_is_a_target() -> None:
    text = (ROOT / "docs" / "networks.md").read_text()
    (table,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert macs(Architecture.from_dict(yaml.safe_load(table))) > 0


# Studies are no runs (tests/nasaug/comparing checks them), nor are spaces.
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
RUNS = [path for path in CONFIGS if path.parent.name not in ("studies", "spaces")]
SPACES = [path for path in CONFIGS if path.parent.name == "spaces"]


@pytest.mark.parametrize("path", RUNS, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_shipped_configs_load_and_open_with_their_command(path: Path) -> None:
    from nasaug.config import SearchConfig, load_config
    from nasaug.pipelines.rank_config import RankConfig
    from nasaug.train_config import TrainConfig

    text = path.read_text()
    start = r"^#   (?:torchrun --nproc-per-node \d+ -m )?nasaug ([\w-]+) --config (\S+)"
    (command,) = re.findall(rf"{start}(?: --data-dir DATA)?$", text, re.MULTILINE)
    kind = {"search": SearchConfig, "train": TrainConfig, "rank-check": RankConfig}[command[0]]
    assert ROOT / command[1] == path
    load_config(kind, str(path), (), {})
    assert "# Result: " in text


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.name)
def test_shipped_spaces_load_and_open_with_the_command_that_gave_their_result(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = path.read_text()
    (code,) = re.findall(r'^#   python -c "(.*)"$', text, re.MULTILINE)
    assert f"load_space('{path.stem}'" in code
    exec(code, {})
    (result,) = re.findall(r"^# Result: (.*)$", text, re.MULTILINE)
    assert result.startswith(capsys.readouterr().out.strip())
    assert load_space(path, 10).count() == load_space(path.stem, 10).count()
