"""The search: an Optuna study over the members of a space that meet the limits."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from nasaug.search.evolution import EvolutionSampler
from nasaug.search.opening import (
    COSTS,
    close_storage,
    name_errors_of,
    open_storage,
    open_study,
    space_facts,
    storage_name,
)
from nasaug.search.samplers import JUDGED, FeasibleSampler, nsga2, tpe
from nasaug.search.workers import (
    COMPLETE_PARAMS,
    WORKER,
    Presence,
    fail_lost_trials,
    requeue,
    running,
)
from nasaug.supernet import (
    Architecture,
    ChoicePath,
    Limits,
    Region,
    SearchSpace,
    did_you_mean,
)

SAMPLERS: dict[str, Callable[[SearchSpace, Region, int], BaseSampler]] = {
    "evolution": EvolutionSampler,
    "tpe": tpe,
    "nsga2": nsga2,
    "random": FeasibleSampler,
}

Values = tuple[float, ...]
Evaluate = Callable[[Architecture], float | Values]
Race = Callable[[Architecture, list[Architecture]], float | None]
Watch = Callable[[int, int, float], None]


class SearchInterrupted(KeyboardInterrupt):
    """Ctrl-C during a search; `study` holds what was judged before."""

    def __init__(self, study: optuna.Study) -> None:
        super().__init__()
        self.study = study


log = logging.getLogger(__name__)

INCUMBENTS = 4
JUDGING_MACS = "judging_macs"
POLL_SECONDS = 0.2


def search(
    space: SearchSpace,
    evaluate: Evaluate,
    limits: int | Limits,
    storage: str | Path | BaseStorage,
    sampler: str = "evolution",
    trials: int = 64,
    seed: int = 0,
    resume: bool = False,
    watch: Watch | None = None,
    name: str = "nasaug",
    objectives: Sequence[str] = ("accuracy",),
    race: Race | None = None,
    workers: Path | None = None,
    join: bool = False,
    opened: Callable[[], object] | None = None,
    spent: Callable[[], int] | None = None,
) -> optuna.Study:
    """Maximise `evaluate` over the members of `space` within `limits` (a number: MACs).

    `storage` is a journal file's path, a database URL or an Optuna storage. With `resume` a study
    found there goes on until it has `trials` judged trials; those that were running when it was
    interrupted are run again. `name` is the study's. An architecture is evaluated once: a repeated
    one costs nothing. `watch(judged, trials, best)` is called after every trial.

    `objectives`: costs (macs, params, memory, flash, latency) are minimised, the others maximised;
    `evaluate` returns the values of the others, in their order. `race(candidate, incumbents)` may
    return an interim accuracy instead of None: the candidate is then out of reach and pruned; it is
    for a single objective.

    Several processes share a study when all but the first `join` it: on one machine by the locks
    in `workers` (default: beside the journal), elsewhere by the database's heartbeat. `opened` is
    called when the study is there to be joined. `spent()` are the MACs that judging has taken so
    far; every trial keeps its own (see `judging_macs`).

    Raises: Infeasible; ValueError for an unknown sampler, a storage that cannot be used, a stored
        study of another space, limits or objectives, or a judgement that is no number;
        SearchInterrupted on Ctrl-C, the candidate at hand queued for a resumed search.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}: {did_you_mean(sampler, SAMPLERS)}")
    judged = _judged_objectives(objectives, race)
    if not isinstance(limits, Limits):
        limits = Limits(macs=limits)
    region = space.within(limits)
    is_database = isinstance(storage, RDBStorage) or "://" in str(storage)
    if workers is None and not is_database and not isinstance(storage, BaseStorage):
        workers = Path(f"{storage}.workers")
    place = storage_name(storage)
    facts = space_facts(space) | {"limits": limits.given, "objectives": list(objectives)}
    own_sampler = SAMPLERS[sampler](space, region, seed)
    presence = Presence(workers, elsewhere=is_database)
    kept: BaseStorage | None = None
    try:
        kept = open_storage(storage, exclusive=not join and not presence.others())
        study = open_study(
            kept, place, name, own_sampler, objectives, facts, presence, resume, join
        )
        if opened is not None:
            opened()
        objective = _objective(space, region, evaluate, race, objectives, judged, presence, spent)
        try:
            _work(study, objective, trials, presence, watch, place)
        except KeyboardInterrupt:
            raise SearchInterrupted(study) from None
    finally:
        presence.leave()
        if kept is not None and kept is not storage:
            close_storage(kept)
    return study


def ranking(study: optuna.Study, space: SearchSpace) -> list[tuple[ChoicePath, FrozenTrial]]:
    """The distinct architectures, best in the first objective first; fewer MACs among equals."""
    first: dict[ChoicePath, FrozenTrial] = {}
    for trial in _finished(study):
        first.setdefault(space.path_of(trial.params), trial)
    return sorted(first.items(), key=lambda item: (-item[1].values[0], space.macs(item[0])))


def judging_macs(study: optuna.Study) -> int:
    """The MACs that judging all trials took, by whichever workers; 0 where nobody counted."""
    return sum(trial.user_attrs.get(JUDGING_MACS, 0) for trial in study.get_trials(deepcopy=False))


def losers(study: optuna.Study, space: SearchSpace) -> list[tuple[ChoicePath, float]]:
    """The distinct architectures that lost a race, with their interim accuracy, best first."""
    first: dict[ChoicePath, float] = {}
    for trial in study.get_trials(deepcopy=False, states=(TrialState.PRUNED,)):
        first.setdefault(space.path_of(trial.params), trial.intermediate_values[0])
    return sorted(first.items(), key=lambda item: (-item[1], space.macs(item[0])))


def pareto_front(study: optuna.Study, space: SearchSpace) -> list[tuple[ChoicePath, FrozenTrial]]:
    """The distinct architectures that no other dominates, best first objective first."""
    numbers = {trial.number for trial in study.best_trials}
    return [(path, trial) for path, trial in ranking(study, space) if trial.number in numbers]


def _judged_objectives(objectives: Sequence[str], race: Race | None) -> int:
    judged = [one for one in objectives if one not in COSTS]
    if (
        not judged
        or list(objectives[: len(judged)]) != judged
        or len({*objectives}) < len(objectives)
    ):
        raise ValueError(
            "objectives must be distinct and begin with a judged one (accuracy, help), costs "
            f"({', '.join(COSTS)}) after it, but got {','.join(objectives)}"
        )
    if race is not None and len(objectives) > 1:
        raise ValueError("racing is for a single objective; switch it off, or name one objective")
    return len(judged)


def _objective(
    space: SearchSpace,
    region: Region,
    evaluate: Evaluate,
    race: Race | None,
    objectives: Sequence[str],
    judged: int,
    presence: Presence,
    spent: Callable[[], int] | None,
) -> Callable[[Trial], Values]:
    def judge(trial: Trial) -> Values:
        values = {
            name: trial.suggest_categorical(name, options)
            for name, options in space.decisions.items()
        }
        path = space.path_of(values)
        costs = space.costs(path)
        assert region.contains(path), f"{path} costs {costs}, which {region.limits} forbids"
        for name, value in costs.items():
            trial.set_user_attr(name, value)
        trial.set_user_attr(COMPLETE_PARAMS, True)
        for name, excess in _excesses(costs, region.limits).items():
            trial.set_constraint(name, excess)
        twin = _judged_before(trial.study, space, path)
        if twin is None:
            arch = space.architecture(path)
            with _counted(trial, spent):
                if race is not None:
                    _run_race(race, arch, trial, space)
                judgement = _judgement(evaluate, arch, path, judged)
        elif twin.state == TrialState.PRUNED:
            _prune(trial, twin.intermediate_values[0])
        else:
            judgement = tuple(twin.values[:judged])
        return judgement + tuple(float(costs[one]) for one in objectives[judged:])

    def objective(trial: Trial) -> Values:
        trial.set_user_attr(WORKER, presence.name)
        try:
            return judge(trial)
        except (optuna.TrialPruned, optuna.exceptions.UpdateFinishedTrialError):
            raise
        except BaseException:
            requeue(trial.study, trial)
            raise

    return objective


@contextmanager
def _counted(trial: Trial, spent: Callable[[], int] | None) -> Iterator[None]:
    """Keep what judging the trial takes, whether it is judged to its end or loses a race."""
    before = 0 if spent is None else spent()

    def keep() -> None:
        if spent is not None:
            trial.set_user_attr(JUDGING_MACS, spent() - before)

    try:
        yield
    except optuna.TrialPruned:
        keep()
        raise
    keep()


def _work(
    study: optuna.Study,
    objective: Callable[[Trial], Values],
    trials: int,
    presence: Presence,
    watch: Watch | None,
    place: str,
) -> None:
    """Run trials until `trials` are judged; a worker with nothing to do waits for the others."""
    while (done := len(study.get_trials(deepcopy=False, states=JUDGED))) < trials:
        fail_lost_trials(study, presence)
        if done + len(running(study)) >= trials:
            time.sleep(POLL_SECONDS)
            continue
        try:
            with name_errors_of(place):
                study.optimize(objective, n_trials=1)
        except optuna.exceptions.UpdateFinishedTrialError:
            log.warning("this process stood still, and another worker took its candidate over")
            continue
        if watch is not None:
            best = max((trial.values[0] for trial in _finished(study)), default=math.nan)
            watch(len(study.get_trials(deepcopy=False, states=JUDGED)), trials, best)


def _run_race(race: Race, arch: Architecture, trial: Trial, space: SearchSpace) -> None:
    """Raises: TrialPruned when the candidate is out of reach of the best so far."""
    best = [path for path, _ in ranking(trial.study, space)[:INCUMBENTS]]
    if not best:
        return
    interim = race(arch, [space.architecture(path) for path in best])
    if interim is not None:
        _prune(trial, interim)


def _prune(trial: Trial, interim: float) -> NoReturn:
    trial.report(interim, 0)
    raise optuna.TrialPruned


def _judgement(evaluate: Evaluate, arch: Architecture, path: ChoicePath, judged: int) -> Values:
    given = evaluate(arch)
    values = tuple(given) if isinstance(given, Sequence) else (given,)
    if len(values) != judged or not all(math.isfinite(value) for value in values):
        rule = "no number" if judged == 1 else f"not {judged} numbers"
        raise ValueError(f"the candidate {path} was judged {given}, which is {rule}")
    return values


def _judged_before(study: optuna.Study, space: SearchSpace, path: ChoicePath) -> FrozenTrial | None:
    """The trial that judged the same architecture, whichever worker did."""
    for trial in study.get_trials(deepcopy=False, states=JUDGED):
        if space.path_of(trial.params) == path:
            return trial
    return None


def _excesses(costs: dict[str, int], limits: Limits) -> dict[str, int]:
    """For Optuna's constraints: what is beyond each limit, feasible at 0 and below."""
    found = {name: costs[name] - most for name, most in limits.given.items() if name in costs}
    if limits.least_macs is not None:
        found["least_macs"] = limits.least_macs - costs["macs"]
    return found


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
