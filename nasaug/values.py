"""What single keys of a configuration may hold: parsers whose errors say what is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BeforeValidator

from nasaug.search import SAMPLERS
from nasaug.supernet import did_you_mean


def storage_url(url: str | None) -> str | None:
    if url is not None and "://" not in url:
        raise ValueError(
            f"{url!r} is no database URL such as sqlite:///study.db or postgresql://...; "
            "without storage the study is a journal file in the run's folder"
        )
    return url


def known_sampler(name: str) -> str:
    if name not in SAMPLERS:
        raise ValueError(f"unknown sampler {name!r}: {did_you_mean(name, SAMPLERS)}")
    return name


OBJECTIVES = ("accuracy", "help", "macs", "params", "memory", "flash", "latency")


def known_objectives(given: Any) -> Any:
    """`accuracy,macs` as a tuple; `both` is accuracy and help."""
    names = given.split(",") if isinstance(given, str) else given
    if not isinstance(names, list | tuple):
        return given
    names = [str(name).strip() for name in names]
    names = ["accuracy", "help"] if names == ["both"] else names
    for name in names:
        if name not in OBJECTIVES:
            raise ValueError(f"unknown objective {name!r}: {did_you_mean(name, OBJECTIVES)}")
    return tuple(names)


def optional(parse: Callable[[Any], int]) -> BeforeValidator:
    return BeforeValidator(lambda given: None if given is None else parse(given))
