"""What a search judges a candidate by: accuracy with inherited weights, help for the target."""

from __future__ import annotations

from nasaug.config import SearchConfig
from nasaug.search import Evaluate, Helpfulness, InheritedAccuracy
from nasaug.setting import Setting
from nasaug.supernet import Architecture, Network, SearchSpace


def make_judge(
    config: SearchConfig, setting: Setting, space: SearchSpace, supernet: Network
) -> Evaluate:
    """The values of the judged objectives of `config`, in their order."""
    judges = [
        _JUDGES[name](setting, space, supernet) for name in config.objectives if name in _JUDGES
    ]
    if len(judges) == 1:
        return judges[0]

    def judge(arch: Architecture) -> tuple[float, ...]:
        return tuple(float(one(arch)) for one in judges)

    return judge


def inherited_accuracy(
    setting: Setting, space: SearchSpace, supernet: Network
) -> InheritedAccuracy:
    """Validation top-1 with the supernet's weights."""
    return InheritedAccuracy(supernet, setting.calibration(), setting.validation())


def _helpfulness(setting: Setting, space: SearchSpace, supernet: Network) -> Helpfulness:
    smoothing = setting.config.train.label_smoothing
    return Helpfulness(
        supernet,
        space.target,
        setting.training,
        setting.validation(),
        label_smoothing=smoothing,
    )


_JUDGES = {"accuracy": inherited_accuracy, "help": _helpfulness}
