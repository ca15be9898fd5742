"""Conversion of the values of options and arguments without pydantic.

Typer converts values with pydantic from its release 0.29 on. Importing pydantic and building its validators
takes longer than everything else that ``snac info`` does. The options of this program have few types, so
their values are converted here. A parameter of another type, and any parameter under another release of
Typer, is left as Typer made it: slower then, but right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any, get_args, get_origin

import typer

__all__ = ["convert_plainly"]

Convert = Callable[[Any], Any]


def convert_plainly(parameters: list[Any]) -> list[Any]:
    """Makes click's `parameters`, as Typer builds them, convert their values by this module; returns them."""
    for parameter in parameters:
        descriptor = getattr(parameter, "type_descriptor", None)
        if descriptor is not None and getattr(parameter, "_runtime_param", descriptor) is None:
            convert = _converter(descriptor.annotation, descriptor.parameter_info)
            if convert is not None:
                parameter._runtime_param = _PlainValue(convert)
    return parameters


class _PlainValue:
    """What Typer asks to convert the value of one parameter, in place of its own ``RuntimeParam``."""

    def __init__(self, convert: Convert) -> None:
        self._convert = convert

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Returns the converted value; a tuple where the parameter takes several.

        Raises:
            typer.BadParameter: the value is not of the parameter's type.
        """
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        try:
            return tuple(map(self._convert, value)) if several else self._convert(value)
        except ValueError as error:
            raise typer.BadParameter(str(error), ctx=ctx, param=param) from error


def _converter(annotation: Any, information: Any) -> Convert | None:
    """Returns the function that converts a value of this type; None for a type that is not known here."""
    if get_origin(annotation) is list:
        return _converter(get_args(annotation)[0], information)
    if information.parser is not None:
        parser: Convert = information.parser
        return parser
    if annotation is str:
        return str
    if annotation is bool:  # a flag, which the parser has made True already
        return bool
    if annotation in (int, float):
        return _number(annotation, information.min, information.max)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _choice(annotation)
    return None


def _number(kind: type[int] | type[float], least: float | None, most: float | None) -> Convert:
    name = "a whole number" if kind is int else "a number"

    def convert(value: Any) -> float:
        try:
            number = kind(value)
        except ValueError as error:
            raise ValueError(f"{value!r} is not {name}") from error
        if (
            math.isnan(number)
            or (least is not None and number < least)
            or (most is not None and number > most)
        ):
            raise ValueError(f"{value} is not {_range(least, most)}")
        return number

    return convert


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return f"at most {most}" if most is not None else "a number"
    return f"{least} or more" if most is None else f"in the range of {least} to {most}"


def _choice(choices: type[Enum]) -> Convert:
    def convert(value: Any) -> Enum:
        for choice in choices:
            if value is choice or value == choice.value:
                return choice
        raise ValueError(f"{value!r} is not one of {', '.join(str(choice.value) for choice in choices)}")

    return convert
