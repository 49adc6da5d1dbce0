"""Data, the one training loop, evaluation, runs. Trains any network for any caller."""

from nasaug.training.datasets import DATASETS, Dataset, ImageArray, load_dataset
from nasaug.training.distributed import ALONE, Workers, join_workers
from nasaug.training.evaluate import evaluate, reestimate_batch_norm
from nasaug.training.files import read_json_object, write_atomically, write_json
from nasaug.training.fit import State, Step, fit, plain_step
from nasaug.training.loaders import (
    Batch,
    Batches,
    View,
    calibration_batches,
    evaluation_batches,
    training_batches,
)
from nasaug.training.monitor import Losses, TrainingFailed
from nasaug.training.process import keep_caches
from nasaug.training.recipe import Recipe, proxy_resolution
from nasaug.training.run import RunFolder, load_weights, read_facts, save_weights

__all__ = [
    "ALONE",
    "DATASETS",
    "Batch",
    "Batches",
    "Dataset",
    "ImageArray",
    "Losses",
    "Recipe",
    "RunFolder",
    "State",
    "Step",
    "TrainingFailed",
    "View",
    "Workers",
    "calibration_batches",
    "evaluate",
    "evaluation_batches",
    "fit",
    "join_workers",
    "keep_caches",
    "load_dataset",
    "load_weights",
    "plain_step",
    "proxy_resolution",
    "read_facts",
    "read_json_object",
    "reestimate_batch_norm",
    "save_weights",
    "training_batches",
    "write_atomically",
    "write_json",
]
