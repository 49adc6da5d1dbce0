"""The outer teacher of a training run: loaded, and its answers kept where they never change."""

from __future__ import annotations

from pathlib import Path

from nasaug.console import progress_bar
from nasaug.setting import Setting
from nasaug.train_config import TrainConfig
from nasaug.training import CachedTeacher, Teacher, load_teacher, soft_labels, ways_shown

CACHE = Path.home() / ".cache" / "nasaug"


def teacher_for(config: TrainConfig, setting: Setting) -> Teacher | None:
    """None without distillation.

    Raises: ValueError for a teacher that does not fit, and for soft labels to be kept of images
        that change.
    """
    options = config.distill
    if options is None:
        return None
    assert options.teacher is not None  # the configuration's own check
    data, view = setting.data, setting.view
    teacher = load_teacher(
        options.teacher, len(data.classes), view.in_channels, view.resolution, view.device
    )
    ways = ways_shown(data, view)
    if options.cache == "always" and ways == 0:
        raise ValueError(
            "distill.cache keeps the teacher's answers for images that are shown alike in every "
            "epoch, or mirrored where they are in memory, but data.crop, data.flip or a policy "
            "changes them; set data.crop=0 (data.flip=false too, for image files) and no policy, "
            "or distill.cache=auto"
        )
    if options.cache == "never" or ways == 0:
        return teacher
    folder = CACHE if options.cache_dir is None else Path(options.cache_dir)
    with progress_bar("soft labels") as bar:
        watch = bar if setting.group.first else None
        labels = soft_labels(teacher, data, view, folder, group=setting.group, watch=watch)
    return CachedTeacher(labels, setting.training, teacher)
