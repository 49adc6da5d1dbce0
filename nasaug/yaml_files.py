"""YAML as people write it in configurations, every mistake in it one kind of error."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml


def read_yaml(path: Path) -> dict[str, Any]:
    """Raises: ValueError naming a file that holds no keys and values; OSError."""
    try:
        data = parse_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a YAML file ({error})") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold keys and values, but holds a {type(data).__name__}")
    return data


def parse_yaml(text: str) -> Any:
    """The value of a text.

    Raises: yaml.YAMLError, also where PyYAML stumbles over what it cannot construct.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise
    except Exception as error:  # PyYAML's constructors fail in many ways
        raise yaml.YAMLError(f"not a value: {error or type(error).__name__}") from None


class _Loader(yaml.SafeLoader):
    """Without what YAML 1.1 takes for truth values besides true and false: in version 1.2, and for
    people, `on` and `no` are words, such as the key `race.on`."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if not tag.endswith(":bool")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("true|True|TRUE|false|False|FALSE"), list("tTfF")
)
