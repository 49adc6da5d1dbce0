"""Budgets, the one-shot supernet, the Optuna study over it, judging a candidate."""

from nasaug.search.budget import format_macs, parse_budget
from nasaug.search.evolution import EvolutionSampler
from nasaug.search.inherited import InheritedAccuracy
from nasaug.search.spos import single_path_step
from nasaug.search.study import SAMPLERS, ranking, search

__all__ = [
    "SAMPLERS",
    "EvolutionSampler",
    "InheritedAccuracy",
    "format_macs",
    "parse_budget",
    "ranking",
    "search",
    "single_path_step",
]
