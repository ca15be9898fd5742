"""Checked values of a configuration: types, ranges, unknown keys. Knows no torch."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from snaccli.errors import ParameterError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_LISTS = {"tuple[int, ...]": "int", "tuple[float, ...]": "float", "tuple[str, ...]": "str"}
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text in quotes",
}


def build(kind: Any, values: Any, where: str) -> Any:
    """A dataclass of ``kind`` from the values of a table.

    Raises:
        UsageError: an unknown key (the nearest known one is named), a missing one, a value of another type.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where} configuration: must be a table, not {values!r}")
    known = {item.name: item for item in dataclasses.fields(kind)}
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
            raise UsageError(f"{where} configuration: unknown key {key!r}{hint}")
    for name, item in known.items():
        default = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        if name not in values and not default:
            raise UsageError(f"{where} configuration: {name!r} is missing")
    return kind(**{name: _value(value, str(known[name].type), where, name) for name, value in values.items()})


def _value(value: Any, wanted: str, where: str, name: str) -> Any:
    if wanted in _LISTS:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where} configuration: {name} must be a list, not {value!r}")
        return tuple(_value(item, _LISTS[wanted], where, f"each of {name}") for item in value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        "int": number and isinstance(value, int),
        "float": number and math.isfinite(value),
        "bool": isinstance(value, bool),
        "str": isinstance(value, str),
    }
    if not fits.get(wanted, True):
        raise UsageError(f"{where} configuration: {name} must be {_WORDS[wanted]}, not {value!r}")
    return float(value) if wanted == "float" else value


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raises a UsageError unless ``low`` <= ``value`` <= ``high``."""
    if not low <= value <= high:
        raise UsageError(f"training configuration: {name} must be from {low:g} to {high:g}, not {value:g}")


def check_share(name: str, value: float) -> None:
    """Raises a UsageError unless ``value`` is from 0 to 1."""
    check_range(name, value, 0, 1)


def set_value(values: dict[str, Any], change: str) -> None:
    """Sets one value of a nested table by ``key=value``, the key with dots, list items by their number.

    Raises:
        ParameterError: the change has no key, or the key leads into a value that is no table.
    """
    path, equals, text = change.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(re.fullmatch(r"[\w-]+", key) for key in keys):
        raise ParameterError("changes", change, "write key=value, such as stages.0.batch=4")
    place: Any = values
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(place, list) and key.isdigit() and int(key) < len(place):
            index: Any = int(key)
        elif isinstance(place, dict):
            index = key
            if not last:
                place.setdefault(key, {})
        else:
            raise ParameterError("changes", change, f"there is no {'.'.join(keys[: depth + 1])}")
        if last:
            place[index] = _parsed(text.strip())
        else:
            place = place[index]


def _parsed(text: str) -> Any:
    """A value as TOML writes it; text without quotes where that is no TOML."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, KeyError):
        return text
