"""Our targets as models of timm: after `import nasaug.timm_models`,

    timm.create_model("nasaug_mbv2_tiny", num_classes=10)
    timm.create_model("nasaug_mcunet", features_only=True, out_indices=(2, 3, 4))
    timm.create_model("nasaug_micro_40k", pretrained=True,
                      pretrained_cfg_overlay={"file": "runs/mine/weights.safetensors"})

timm finds models in a registry of its own; importing this module is what enters them there, one for
each of `target_names()`. Weights come from files only. A weights.safetensors of ours says itself
which images it was trained on (size, mean, deviation, classes), and of which target it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor

try:
    from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
except ImportError:
    raise ImportError(
        "nasaug.timm_models needs timm, which is not installed; run pip install 'nasaug[timm]'"
    ) from None

from nasaug.supernet import load_target, target_names
from nasaug.timm_network import FeatureMaps, Rows, TimmNetwork
from nasaug.training import load_weights, read_facts, shipped_weights
from nasaug.training.run import METADATA

PREFIX = "nasaug_"
FOR_CLASSIFIERS = ("num_classes", "global_pool", "drop_rate")


def described(file: str | Path, target: str) -> dict[str, Any]:
    """What a weights.safetensors of ours says of itself, as keys of timm's pretrained_cfg; nothing
    for another file, whose tensors' names are checked when they are loaded.

    Raises: ValueError for a file that is damaged, or of another target; OSError.
    """
    path = Path(file)
    if not _is_ours(path):
        return {}
    arch, facts = load_weights(path).arch, read_facts(path)
    wanted = load_target(target, arch.num_classes, arch.resolution, arch.in_channels)
    if arch != wanted:
        raise ValueError(
            f"{path} holds {arch.name}, not {target}; create {PREFIX}{arch.name}, or name another "
            "file"
        )
    size = facts.get("resolution", arch.resolution)
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"{path} is damaged: it was trained at a resolution of {size!r}")
    cfg: dict[str, Any] = {
        # Of older releases only weights for images that are shown whole are in the package.
        "crop_pct": _number(path, "crop", facts.get("crop", 1.0)),
        "file": str(path),
        "input_size": (arch.in_channels, size, size),
        "num_classes": arch.num_classes,
    }
    for key in ("mean", "std"):
        if key in facts:
            cfg[key] = tuple(_number(path, key, one) for one in _listed(path, key, facts[key]))
    if "classes" in facts:
        cfg["label_names"] = tuple(map(str, _listed(path, "classes", facts["classes"])))
    return cfg


def _listed(path: Path, key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{path} is damaged: its {key} must be a list, but is {value!r}")
    return value


def _number(path: Path, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{path} is damaged: its {key} must be a number, but is {value!r}")
    return float(value)


def _is_ours(path: Path) -> bool:
    if path.suffix != ".safetensors":
        return False
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return METADATA in (file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error})") from None


def default_settings(target: str) -> dict[str, Any]:
    """What timm knows of a target beforehand; where weights of it are shipped, theirs."""
    shipped = shipped_weights(target)
    return {
        **_fresh(target),
        "interpolation": "bilinear",
        "first_conv": "blocks.0.conv",
        "classifier": f"blocks.{len(load_target(target).rows) - 1}.linear",
        **({} if shipped is None else described(shipped, target)),
    }


def _fresh(target: str) -> dict[str, Any]:
    """What a target reads and tells apart with fresh weights, whatever shipped ones do."""
    arch = load_target(target)
    return {
        "input_size": (arch.in_channels, arch.resolution, arch.resolution),
        "num_classes": arch.num_classes,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
    }


def _create(
    target: str,
    pretrained: bool,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    features_only: bool = False,
    **kwargs: Any,
) -> Rows:
    """A classifier, or with `features_only` feature maps; `kwargs` are theirs and timm's.

    Raises: ValueError for what the target cannot have, and for weights of another one.
    """
    overlay = dict(pretrained_cfg_overlay or {})
    given = pretrained_cfg if isinstance(pretrained_cfg, Mapping) else {}
    file = overlay.get("file") or given.get("file")
    if file is not None:
        overlay = described(file, target) | overlay
    elif not pretrained:
        overlay = _fresh(target) | overlay
    if features_only:
        kwargs["kwargs_filter"] = FOR_CLASSIFIERS
    net: Rows = build_model_with_cfg(
        FeatureMaps if features_only else TimmNetwork,
        f"{PREFIX}{target}",
        pretrained,
        pretrained_cfg=pretrained_cfg,
        pretrained_cfg_overlay=overlay,
        model_cfg=target,
        pretrained_filter_fn=_fitting,
        **kwargs,
    )
    return net


def _fitting(tensors: dict[str, Tensor], net: Rows) -> dict[str, Tensor]:
    """`tensors`, which must be those of the whole target; timm passes over what is missing when it
    gives a network another classifier.

    Raises: ValueError.
    """
    named = {name for name in tensors if not name.endswith("num_batches_tracked")}
    missing, unknown = sorted(net.whole - named), sorted(named - net.whole)
    if missing or unknown:
        raise ValueError(
            f"the weights are not of {net.pretrained_cfg['architecture']}: "
            f"missing {', '.join(missing[:3]) or 'nothing'} ({len(missing)} in all), "
            f"unknown {', '.join(unknown[:3]) or 'nothing'} ({len(unknown)} in all)"
        )
    return tensors


def _entry(target: str) -> Callable[..., Rows]:
    """The function that timm calls; it is entered, and its settings are found, by its name."""

    def create(pretrained: bool = False, **kwargs: Any) -> Rows:
        return _create(target, pretrained, **kwargs)

    create.__name__ = create.__qualname__ = f"{PREFIX}{target}"
    create.__doc__ = f"{target} of nasaug, for timm."
    return create


default_cfgs = generate_default_cfgs(
    {f"{PREFIX}{target}": default_settings(target) for target in target_names()}
)
MODELS = {f"{PREFIX}{target}": register_model(_entry(target)) for target in target_names()}
__all__ = ["MODELS", "default_settings", "described"]
