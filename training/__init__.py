"""Data, the one training loop, evaluation, runs. Trains any network for any caller."""

from nasaug.training.datasets import DATASETS, Dataset, ImageArray, load_dataset
from nasaug.training.described import describe, normalisation
from nasaug.training.diagnosis import Accuracy, Diagnosis, class_balanced, diagnose
from nasaug.training.distillation import certainty, distillation
from nasaug.training.distributed import ALONE, Workers, join_workers
from nasaug.training.evaluate import Batch, evaluate, reestimate_batch_norm
from nasaug.training.files import read_json_object, write_atomically, write_json
from nasaug.training.fit import Step, fit, plain_step
from nasaug.training.gathering import gather
from nasaug.training.label_cache import CachedTeacher, SoftLabels, soft_labels, ways_shown
from nasaug.training.libraries import read_state_dict
from nasaug.training.loaders import (
    Batches,
    calibration_batches,
    evaluation_batches,
    training_batches,
    training_sample,
)
from nasaug.training.metrics import AtK, Judgement, judge
from nasaug.training.monitor import Losses, TrainingFailed
from nasaug.training.passes import Passes, rehearse
from nasaug.training.pictures import UnreadablePicture, open_picture
from nasaug.training.process import keep_caches
from nasaug.training.recipe import Recipe, check_batch, proxy_resolution, total_steps
from nasaug.training.relational import relational_loss
from nasaug.training.run import (
    RunFolder,
    load_weights,
    read_described,
    read_facts,
    save_weights,
)
from nasaug.training.shipped import shipped_names, shipped_weights
from nasaug.training.splits import imbalanced
from nasaug.training.state import State
from nasaug.training.teachers import OuterTeacher, Teacher, load_teacher
from nasaug.training.views import View

__all__ = [
    "ALONE",
    "DATASETS",
    "Accuracy",
    "AtK",
    "Batch",
    "Batches",
    "CachedTeacher",
    "Dataset",
    "Diagnosis",
    "ImageArray",
    "Judgement",
    "Losses",
    "OuterTeacher",
    "Passes",
    "Recipe",
    "RunFolder",
    "SoftLabels",
    "State",
    "Step",
    "Teacher",
    "TrainingFailed",
    "UnreadablePicture",
    "View",
    "Workers",
    "calibration_batches",
    "certainty",
    "check_batch",
    "class_balanced",
    "describe",
    "diagnose",
    "distillation",
    "evaluate",
    "evaluation_batches",
    "fit",
    "gather",
    "imbalanced",
    "join_workers",
    "judge",
    "keep_caches",
    "load_dataset",
    "load_teacher",
    "load_weights",
    "normalisation",
    "open_picture",
    "plain_step",
    "proxy_resolution",
    "read_described",
    "read_facts",
    "read_json_object",
    "read_state_dict",
    "reestimate_batch_norm",
    "rehearse",
    "relational_loss",
    "save_weights",
    "shipped_names",
    "shipped_weights",
    "soft_labels",
    "total_steps",
    "training_batches",
    "training_sample",
    "ways_shown",
    "write_atomically",
    "write_json",
]
