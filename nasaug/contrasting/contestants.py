"""The ways to a small network that are put beside each other, as data.

A contestant may search first, and may train then. `SEARCH` in its keys stands for the folder of its
search, `FOUND` for the network that this found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

SEARCH, FOUND = "search:", "search:/best.json"
# Up: the largest network to train the target in. Down: the small network itself; whole: with all
# of the compute, since no training follows.
Kind = Literal["up", "down", "whole"]


@dataclass(frozen=True)
class Contestant:
    """`keys` are those of `nasaug train`; None is not trained any further. `against`: whom it is
    compared with."""

    says: str
    search: Kind | None = None
    keys: Mapping[str, Any] | None = None
    against: tuple[str, ...] = ("alone",)

    @property
    def finds(self) -> bool:
        """Whether the network comes from the search, rather than being the hand-made target."""
        return self.search in ("down", "whole")


def _keys(**given: Any) -> Mapping[str, Any]:
    return MappingProxyType(given)


AROUND = {"method": "netaug", "largest": "published", "netaug": {"r": 3.0, "s": 3}}

CONTESTANTS: dict[str, Contestant] = {
    "alone": Contestant("the hand-made target, trained alone", None, _keys(method="baseline"), ()),
    "netaug": Contestant("the target in NetAug, r = 3", None, _keys(**AROUND)),
    "netaug_searched": Contestant(
        "the target in NetAug, the largest network searched",
        "up",
        _keys(method="netaug", largest=SEARCH),
        ("alone", "netaug"),
    ),
    "ofa_inherited": Contestant("what OFA finds, with inherited weights", "whole"),
    "ofa_finetuned": Contestant(
        "what OFA finds, fine-tuned",
        "down",
        _keys(method="baseline", target=FOUND, init=SEARCH),
        ("alone", "netaug"),
    ),
    "ofa_alone": Contestant(
        "what OFA finds, trained alone from fresh weights",
        "down",
        _keys(method="baseline", target=FOUND),
    ),
    "ofa_netaug": Contestant(
        "what OFA finds, in NetAug, r = 3",
        "down",
        _keys(**AROUND, target=FOUND),
        ("alone", "ofa_alone"),
    ),
}


def placed(keys: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """The keys with a search's folder in its place."""
    return {
        key: folder + value.removeprefix(SEARCH)
        if isinstance(value, str) and value.startswith(SEARCH)
        else value
        for key, value in keys.items()
    }
