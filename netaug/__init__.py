"""NetAug: training a tiny target inside larger networks that share its weights."""

from nasaug.netaug.augmentation import Augmentation
from nasaug.netaug.step import NetAugOptions, netaug_step

__all__ = ["Augmentation", "NetAugOptions", "netaug_step"]
