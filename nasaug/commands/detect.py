"""`nasaug detect`: train, judge and use a detector on any target; compare ways to train one."""

from __future__ import annotations

from typing import Any

import click

from nasaug.cli import json_option, shared_keys, shared_options
from nasaug.study_options import StudyOptions, study_options


@click.group("detect", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Train, judge and use a detector on a target: a single-shot one, with light heads.

    Each of these commands also takes --json: one JSON object on stdout and nothing else.

    \b
    nasaug detect scenes PATH --format coco             data to try it on
    nasaug detect train --data coco:PATH --init RUN    RUN: of nasaug train
    nasaug detect evaluate RUN --data coco:PATH
    nasaug detect predict PICTURE... --weights RUN
    nasaug detect compare STUDY                         MACs at equal mAP, over many runs
    """


@command.command("scenes")
@click.argument("folder", type=click.Path(file_okay=False))
@click.option("--format", "kind", default="coco", show_default=True, help="voc or coco.")
@click.option("--items", default="fashion-mnist-mini", show_default=True, help="Whose images.")
@click.option("--data-dir", help="Where the items' data set lies.")
@click.option("--train", default=1000, show_default=True, help="How many scenes to train on.")
@click.option("--val", default=200, show_default=True, help="How many to validate on.")
@click.option("--test", default=500, show_default=True, help="How many to judge by.")
@click.option("--size", default="128", show_default=True, help="Pixels a side: 128, or 96..256.")
@click.option("--grey", is_flag=True, help="Without colours.")
@click.option("--seed", default=0, show_default=True, help="All of it follows from the seed.")
@json_option
def scenes(
    folder: str,
    kind: str,
    items: str,
    data_dir: str | None,
    train: int,
    val: int,
    test: int,
    size: str,
    grey: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Write pictures of several items, with their boxes, into FOLDER: data to try detection on.

    Items of Fashion-MNIST lie at random places, in random sizes, over each other, on textured
    ground. The folder is one that readers of Pascal VOC or COCO know.
    """
    from nasaug.pipelines.detect_scenes import run_scenes

    counts = {"train": train, "val": val, "test": test}
    run_scenes(folder, kind, items, data_dir, counts, size, not grey, seed, as_json)


@command.command("train")
@shared_options
@click.option("--method", help="baseline (the target alone) or netaug (with helpers).")
@click.option("--init", help="A run of train or detect train, or a weights file, to start from.")
@click.option("--size", type=int, help="Side of the pictures as the detector reads them.")
@click.option("--style", help="How mAP is counted, voc or coco; default: as the data's name says.")
def train(
    config: str | None,
    sets: tuple[str, ...],
    out: str | None,
    resume: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a detector on a target, alone or with NetAug's helpers.

    --data is voc:PATH or coco:PATH, and read only. Only the target's detector is exported, judged
    and saved.
    """
    for name in ("data_dir", "download"):
        if options[name] is not None:
            raise click.UsageError(
                f"--{name.replace('_', '-')} has no meaning here: --data voc:PATH or coco:PATH "
                "says where the pictures lie, and nothing is downloaded"
            )
    from nasaug.config import load_config
    from nasaug.detect_config import DetectConfig
    from nasaug.pipelines.detect_train import run_detect_training

    keys = shared_keys(options) | {
        "method": options["method"],
        "init": options["init"],
        "detector.size": options["size"],
        "style": options["style"],
    }
    run_detect_training(load_config(DetectConfig, config, sets, keys), out, resume, as_json)


@command.command("evaluate")
@click.argument("weights", type=click.Path())
@click.option("--data", required=True, help="voc:PATH or coco:PATH.")
@click.option("--target", help="What the detector must be on.")
@click.option("--style", help="How mAP is counted, voc or coco; default: as the data's name says.")
@click.option("--skip-bad", is_flag=True, help="Leave out what is faulty, and say so.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def evaluate(
    weights: str,
    data: str,
    target: str | None,
    style: str | None,
    skip_bad: bool,
    device: str,
    as_json: bool,
) -> None:
    """Judge a trained detector on a data set's test part.

    WEIGHTS is the folder of a nasaug detect train, or its weights.safetensors.
    """
    from nasaug.pipelines.detect_evaluate import run_detect_evaluation

    run_detect_evaluation(weights, target, data, style, skip_bad, device, as_json)


@command.command("predict")
@click.argument("pictures", nargs=-1, required=True, type=click.Path())
@click.option(
    "--weights", type=click.Path(), help="A run or its weights; default: the newest detector."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False),
    default="detections",
    show_default=True,
    help="Where pictures with boxes and detections.json go.",
)
@click.option(
    "--score",
    type=click.FloatRange(0, 1),
    default=0.3,
    show_default=True,
    help="From which score on.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@json_option
def predict(
    pictures: tuple[str, ...],
    weights: str | None,
    out: str,
    score: float,
    device: str,
    as_json: bool,
) -> None:
    """Draw what a detector finds into copies of pictures, and write it as JSON.

    Boxes are edges in pixels of the upright picture. Without --weights it is the detector of the
    newest run below runs/.
    """
    from nasaug.pipelines.detect_predict import run_prediction

    run_prediction(pictures, weights, out, score, device, as_json)


@command.command("compare")
@click.argument("study")
@study_options("detect")
def compare(study: str, shared: StudyOptions) -> None:
    """Compare ways to pre-train a detector's backbone: mAP at several sizes, MACs at equal mAP.

    STUDY is a YAML file or the name of a built-in one, as detection_scenes. Its runs are trained
    side by side; the same command goes on where it stopped. Here --data is coco:PATH or voc:PATH,
    and --data-dir is where images for pre-training lie.
    """
    from nasaug.comparing.places import Places
    from nasaug.detecting.run import DetectSitting, load_detect_study

    keys = {
        "data": shared.data,
        "data_dir": shared.data_dir,
        "seeds": shared.seeds,
        "workers": shared.workers,
    }
    name, loaded = load_detect_study(study, shared.sets, keys)
    places = Places.of(f"detect-{name}", shared.out, shared.cells)
    DetectSitting(name, loaded, places, shared.as_json).attend(shared)
