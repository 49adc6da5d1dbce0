"""Networks as files that need no nasaug, each checked against the network that was evaluated."""

from nasaug.export.checking import Check, compare, logits_of
from nasaug.export.folding import Folded, fold
from nasaug.export.formats import FORMATS, INT8, Format, open_format
from nasaug.export.model import Calibration, Method, Model, Runner
from nasaug.export.source import Description, run_source, source_of, state_of

__all__ = [
    "FORMATS",
    "INT8",
    "Calibration",
    "Check",
    "Description",
    "Folded",
    "Format",
    "Method",
    "Model",
    "Runner",
    "compare",
    "fold",
    "logits_of",
    "open_format",
    "run_source",
    "source_of",
    "state_of",
]
