"""Pictures with boxes (Pascal VOC, COCO, composed scenes), a detector on any target, mAP."""

from nasaug.detection.annotated import AnnotatedImage, AnnotatedImages, DetectionSet
from nasaug.detection.curves import DetectorCurve
from nasaug.detection.datasets import READERS, load_detection_set
from nasaug.detection.detector import Detector
from nasaug.detection.equal import EqualMap, macs_at_equal_map
from nasaug.detection.judging import detect, in_picture
from nasaug.detection.layout import DetectorMacs, count_detector_with_fvcore, detector_macs
from nasaug.detection.loaders import (
    DetectionBatch,
    DetectionBatches,
    Targets,
    calibration_batches,
    evaluation_batches,
    training_batches,
)
from nasaug.detection.metrics import Detections, DetectionScores, judge_detections
from nasaug.detection.options import DetectorOptions
from nasaug.detection.picture import read_picture
from nasaug.detection.scenes import Scene, SceneStyle, compose
from nasaug.detection.starting import take_detector
from nasaug.detection.steps import DetectionStep, Helpers, detection_step
from nasaug.detection.transforms import SquareTransform, normalised, to_picture
from nasaug.detection.views import DetectionView
from nasaug.detection.voc import VOC_CLASSES
from nasaug.detection.weights import (
    holds_detector,
    load_detector,
    read_detector_facts,
    save_detector,
)
from nasaug.detection.writing import write_scenes

__all__ = [
    "READERS",
    "VOC_CLASSES",
    "AnnotatedImage",
    "AnnotatedImages",
    "DetectionBatch",
    "DetectionBatches",
    "DetectionScores",
    "DetectionSet",
    "DetectionStep",
    "DetectionView",
    "Detections",
    "Detector",
    "DetectorCurve",
    "DetectorMacs",
    "DetectorOptions",
    "EqualMap",
    "Helpers",
    "Scene",
    "SceneStyle",
    "SquareTransform",
    "Targets",
    "calibration_batches",
    "compose",
    "count_detector_with_fvcore",
    "detect",
    "detection_step",
    "detector_macs",
    "evaluation_batches",
    "holds_detector",
    "in_picture",
    "judge_detections",
    "load_detection_set",
    "load_detector",
    "macs_at_equal_map",
    "normalised",
    "read_detector_facts",
    "read_picture",
    "save_detector",
    "take_detector",
    "to_picture",
    "training_batches",
    "write_scenes",
]
