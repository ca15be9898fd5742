"""Conversion of the values of options and arguments without pydantic.

Typer converts values with pydantic from its release 0.29 on. Importing pydantic and building its validators
takes longer than everything else that ``snac info`` does. The options of this program have few types, so
their values are converted here. A parameter of another type, and any parameter under another release of
Typer, is left as Typer made it: slower then, but right.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args, get_origin

import typer

__all__ = ["PlainValues"]


class PlainValues:
    """Stands before a class of Typer's commands: their values are converted by this module."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the options and arguments."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            descriptor = getattr(parameter, "type_descriptor", None)
            if descriptor is not None and getattr(parameter, "_runtime_param", descriptor) is None:
                kind, told = descriptor.annotation, descriptor.parameter_info
                kind = get_args(kind)[0] if get_origin(kind) is list else kind
                known = kind in (str, bool, int, float) or (isinstance(kind, type) and issubclass(kind, Enum))
                if known or told.parser is not None:
                    parameter._runtime_param = _PlainValue(told.parser or kind, told.min, told.max)
        return parameters


@dataclass(frozen=True)
class _PlainValue:
    """What Typer asks to convert the value of one parameter, in place of its own ``RuntimeParam``.

    Attributes:
        kind: what makes a value of a word: a type, the class of the choices there are, or a function.
        least, most: of a number; None for any.
    """

    kind: Any
    least: float | None
    most: float | None

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Returns the converted value; a tuple where the parameter takes several.

        Raises:
            typer.BadParameter: the value is not of the parameter's type.
        """
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        values = []
        for word in value if several else [value]:
            try:
                found = self.kind(word)
            except ValueError as error:
                raise typer.BadParameter(f"{word!r} is not {self._wanted()}", ctx=ctx, param=param) from error
            too_low = self.least is not None and not found >= self.least  # so that NaN is refused, too
            if too_low or (self.most is not None and not found <= self.most):
                raise typer.BadParameter(f"{word} is not {self._range()}", ctx=ctx, param=param)
            values.append(found)
        return tuple(values) if several else values[0]

    def _wanted(self) -> str:
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return f"one of {', '.join(str(choice.value) for choice in self.kind)}"
        return "a whole number" if self.kind is int else "a number"

    def _range(self) -> str:
        if self.least is None:
            return f"at most {self.most}"
        return (
            f"{self.least} or more" if self.most is None else f"in the range of {self.least} to {self.most}"
        )
