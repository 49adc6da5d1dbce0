"""The search: an Optuna study over the paths of a space."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from nasaug.search.evolution import EvolutionSampler
from nasaug.search.journal import open_journal
from nasaug.supernet import Architecture, ChoicePath, SearchSpace, did_you_mean

# Evolution begins with uniform draws; "random" never goes beyond them.
SAMPLERS: dict[str, Callable[[SearchSpace, int, int], BaseSampler]] = {
    "evolution": EvolutionSampler,
    "random": lambda space, budget, seed: EvolutionSampler(space, budget, seed, population=10**9),
}

Evaluate = Callable[[Architecture], float]
Watch = Callable[[int, int, float], None]


def search(
    space: SearchSpace,
    evaluate: Evaluate,
    budget: int,
    storage: str | Path | BaseStorage,
    sampler: str = "evolution",
    trials: int = 64,
    seed: int = 0,
    resume: bool = False,
    watch: Watch | None = None,
    name: str = "nasaug",
) -> optuna.Study:
    """Maximise `evaluate` over the members of `space` within `budget` MACs.

    `storage` is a journal file's path, a database URL or an Optuna storage. With `resume` a study
    found there goes on until it has `trials` finished trials; those that were running when it was
    interrupted are run again. `name` is the study's. An architecture is evaluated once: a repeated
    one costs nothing. `watch(finished, trials, best)` is called after every trial.

    Raises: InfeasibleBudget; ValueError for an unknown sampler, a storage that cannot be used, a
        stored study of another space or budget, or a judgement that is no number.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}: {did_you_mean(sampler, SAMPLERS)}")
    space.check_budget(budget)
    study = _open(space, budget, storage, SAMPLERS[sampler](space, budget, seed), resume, name)
    known: dict[ChoicePath, float] = {
        space.path_of(t.params): t.values[0] for t in _finished(study)
    }

    def objective(trial: Trial) -> float:
        values = {
            name: trial.suggest_categorical(name, options)
            for name, options in space.decisions.items()
        }
        path = space.path_of(values)
        macs = space.macs(path)
        assert macs <= budget, f"{path} has {macs} MACs, over the budget of {budget}"
        trial.set_user_attr("macs", macs)
        trial.set_user_attr("params", space.params(path))
        trial.set_user_attr("feasible", True)
        trial.set_constraint("macs", macs - budget)
        if path not in known:
            value = evaluate(space.architecture(path))
            if not math.isfinite(value):
                raise ValueError(f"the candidate {path} was judged {value}, which is no number")
            known[path] = value
        return known[path]

    while (done := len(_finished(study))) < trials:
        trial = study.ask()
        study.tell(trial, objective(trial))
        if watch is not None:
            watch(done + 1, trials, study.best_value)
    return study


def ranking(study: optuna.Study, space: SearchSpace) -> list[tuple[ChoicePath, FrozenTrial]]:
    """The distinct architectures of a study, best first; fewer MACs first among equals."""
    first: dict[ChoicePath, FrozenTrial] = {}
    for trial in _finished(study):
        first.setdefault(space.path_of(trial.params), trial)
    return sorted(first.items(), key=lambda item: (-(item[1].value or 0.0), space.macs(item[0])))


def _open(
    space: SearchSpace,
    budget: int,
    storage: str | Path | BaseStorage,
    sampler: BaseSampler,
    resume: bool,
    name: str,
) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if isinstance(storage, Path) or (isinstance(storage, str) and "://" not in storage):
        storage = open_journal(Path(storage))
    try:
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            sampler=sampler,
            direction="maximize",
            load_if_exists=resume,
        )
    except optuna.exceptions.DuplicatedStudyError:
        raise ValueError(f"{storage} already holds a study {name!r}: resume it") from None
    except (optuna.exceptions.OptunaError, SQLAlchemyError, ImportError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"the storage {storage} cannot be used: {reason}") from None
    facts = {"space": _digest(space), "budget_macs": budget}
    for name, value in facts.items():
        stored = study.user_attrs.setdefault(name, value)
        if stored != value:
            raise ValueError(f"the stored study has another {name}: {stored}, not {value}")
        study.set_user_attr(name, value)
    _rerun_interrupted(study)
    return study


def _rerun_interrupted(study: optuna.Study) -> None:
    """Fail the trials that a killed process left running, and queue their candidates first."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.enqueue_trial(trial.params)


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _digest(space: SearchSpace) -> str:
    """Tells spaces apart across processes."""
    text = repr((space.target.to_json(), [row.decisions for row in space.rows]))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
