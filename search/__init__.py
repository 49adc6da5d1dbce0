"""Budgets, the one-shot supernet, the Optuna study over it, judging a candidate."""

from nasaug.search.budget import format_count, format_macs, parse_band, parse_budget, parse_memory
from nasaug.search.evolution import EvolutionSampler
from nasaug.search.helpfulness import Helpfulness, Measured
from nasaug.search.inherited import Answers, InheritedAccuracy, Spent
from nasaug.search.opening import check_storage, storage_name
from nasaug.search.racing import PairedRace
from nasaug.search.rank import Estimate, RankReport, draw_stratified, rank_report
from nasaug.search.samplers import FeasibleSampler
from nasaug.search.shrinking import (
    Stage,
    Stages,
    check_stages,
    default_stages,
    sample_stage,
    shrinking_step,
)
from nasaug.search.study import (
    SAMPLERS,
    Evaluate,
    Race,
    SearchInterrupted,
    judging_macs,
    losers,
    pareto_front,
    ranking,
    search,
)
from nasaug.search.supernet_steps import (
    SUPERNET_METHODS,
    SupernetOptions,
    passes_per_step,
    single_path_step,
    supernet_step,
)

__all__ = [
    "SAMPLERS",
    "SUPERNET_METHODS",
    "Answers",
    "Estimate",
    "Evaluate",
    "EvolutionSampler",
    "FeasibleSampler",
    "Helpfulness",
    "InheritedAccuracy",
    "Measured",
    "PairedRace",
    "Race",
    "RankReport",
    "SearchInterrupted",
    "Spent",
    "Stage",
    "Stages",
    "SupernetOptions",
    "check_stages",
    "check_storage",
    "default_stages",
    "draw_stratified",
    "format_count",
    "format_macs",
    "judging_macs",
    "losers",
    "pareto_front",
    "parse_band",
    "parse_budget",
    "parse_memory",
    "passes_per_step",
    "rank_report",
    "ranking",
    "sample_stage",
    "search",
    "shrinking_step",
    "single_path_step",
    "storage_name",
    "supernet_step",
]
