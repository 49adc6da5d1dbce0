"""What the tests of the report and the dashboard share: searches without training, a browser."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore

from nasaug.config import SearchConfig, dump_config, load_config
from nasaug.pipelines.dashboard import annotate
from nasaug.pipelines.searched import Searched, read_search
from nasaug.pipelines.serving import bind, only_for_this_machine, url_of
from nasaug.search import ranking, search
from nasaug.supernet import Architecture, Network, SearchSpace, load_target
from nasaug.training import RunFolder, save_weights, write_json

MakeRun = Callable[..., Path]
Serving = Callable[[Any, Any], AbstractContextManager[str]]


def worth(space: SearchSpace, arch: Architecture) -> float:
    """An accuracy that only the width of the head and one expansion decide."""
    values = space.parameters(space.path(arch))
    return 0.4 + values["head.width"] / 1000 + values["stage3.block2.expand"] / 50


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Writes a search's folder as `nasaug search` would, judged by `worth` in place of a supernet.

    `options` are keys of its configuration; `race` drops what is far behind the best; `priced`
    gives every row a latency; without `finished` there is no best.json yet.
    """

    def make(
        name: str = "run",
        trials: int = 16,
        finished: bool = True,
        race: bool = False,
        priced: bool = False,
        folder: Path | None = None,
        **options: Any,
    ) -> Path:
        given = {"target": "micro_10k", "budget": "3M", "trials": trials, **options}
        config = load_config(SearchConfig, None, (), given)
        run = RunFolder((folder or tmp_path_factory.mktemp("studies")) / name)
        (run.path / "config.yaml").write_text(dump_config(config))
        space = config.space.build(load_target("micro_10k", 10))
        if priced:
            space = space.priced(lambda row, in_channels, size: 1000 + in_channels * size)
        supernet = RunFolder(run.path / "supernet")
        save_weights(supernet.weights, Network(space.largest.canonical(), init=None))
        for epoch in (1, 2, 3):
            facts = {"epoch": epoch, "seconds": 20.0, "target_top1": 0.2 + 0.1 * epoch}
            supernet.log_metrics(10 * epoch, {"loss_path": 2.0 / epoch, **facts})

        def judge(arch: Architecture) -> float | tuple[float, ...]:
            both = {"accuracy": worth(space, arch), "help": random.Random(hash(arch)).random()}
            judged = tuple(both[name] for name in config.objectives if name in both)
            return judged if len(judged) > 1 else judged[0]

        def dropped(arch: Architecture, incumbents: list[Architecture]) -> float | None:
            value = worth(space, arch)
            return value if value < worth(space, incumbents[0]) - 0.05 else None

        study = search(
            space,
            judge,
            config.limits,
            config.storage or run.path / "study.journal",
            config.sampler,
            trials,
            config.seed,
            name=f"micro_10k-{name}",
            objectives=config.objectives,
            race=dropped if race else None,
        )
        if finished:
            _write_best(run.path, config, space, study)
        return run.path

    return make


def _write_best(
    folder: Path, config: SearchConfig, space: SearchSpace, study: optuna.Study
) -> None:
    path, trial = ranking(study, space)[0]
    winner = space.architecture(path, "micro_10k-largest").canonical()
    best = {
        "target": config.target,
        "data": config.data.name,
        "macs": space.macs(path),
        "params": space.params(path),
        "accuracy": trial.values[0],
        "architecture": winner.to_dict(),
        "budget_macs": config.budget,
        "resolution": 28,
        "train_resolution": 28,
    }
    write_json(folder / "best.json", best)


@pytest.fixture(scope="session")
def finished_run(make_run: MakeRun) -> Path:
    """A finished search of one objective; not to be written to."""
    return make_run("finished")


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of it, in `tmp_path`."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@contextmanager
def _serving(storage: Any, artifacts: Any) -> Iterator[str]:
    with bind("127.0.0.1", 0) as server:
        dashboard = pytest.importorskip("optuna_dashboard", reason="NO DASHBOARD is installed")
        application = dashboard.wsgi(storage, artifact_store=artifacts)
        server.set_app(only_for_this_machine(application))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield url_of("127.0.0.1", server.server_port)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def serving() -> Serving:
    """A context with the address of a dashboard, made as the command does, in a thread."""
    return _serving


@pytest.fixture
def prepared() -> Callable[[Path], tuple[Searched, Any, FileSystemArtifactStore]]:
    """Puts the note and pictures on a search, as the command does."""

    def prepare(run: Path) -> tuple[Searched, Any, FileSystemArtifactStore]:
        searched, storage = read_search(run)
        (run / "artifacts").mkdir(exist_ok=True)
        artifacts = FileSystemArtifactStore(run / "artifacts")
        annotate(searched, storage, artifacts)
        return searched, storage, artifacts

    return prepare


class Browser:
    """Chromium without a window; `asked_for` are the addresses that pages have requested."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        self.driver.get_log("performance")
        self.driver.get(url)

    def wait(self, condition: Callable[[Any], Any]) -> Any:
        """What `condition(driver)` gives as soon as that is true. Raises: TimeoutException."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 45).until(condition)

    def wait_for_text(self, text: str) -> None:
        self.wait(lambda driver: text in driver.find_element("tag name", "body").text)

    def asked_for(self) -> list[str]:
        messages = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        urls = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        # Pages of the browser's own, such as a new tab, and what a page holds within itself.
        return [url for url in urls if not url.startswith(("chrome://", "data:", "blob:"))]

    def complaints(self) -> list[str]:
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    selenium = pytest.importorskip("selenium", reason="selenium is missing: no test in a browser")
    programs = [shutil.which("chromium"), shutil.which("chromedriver")]
    if None in programs:
        pytest.skip("NO TEST IN A BROWSER: chromium or chromedriver is not installed")
    del selenium
    from selenium import webdriver

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(programs[0])
        for argument in (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            "--window-size=1300,1400",
            f"--user-data-dir={profile}",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        service = webdriver.ChromeService(executable_path=str(programs[1]))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            yield Browser(driver)
        finally:
            driver.quit()
