"""Values of options, converted without pydantic: as Typer would, and one line for what is wrong."""

from __future__ import annotations

from enum import Enum
from types import SimpleNamespace
from typing import Annotated, Any

import pytest
import typer
import typer.main

from snaccli.cli.options import PlainValues, seconds


class Colour(str, Enum):
    red = "red"
    dark_blue = "dark-blue"


def every_kind(
    names: Annotated[list[str], typer.Argument()],
    text: Annotated[str | None, typer.Option()] = None,
    count: Annotated[int | None, typer.Option(min=1)] = None,
    share: Annotated[float, typer.Option(min=0, max=50)] = 5.0,
    colour: Annotated[Colour, typer.Option()] = Colour.red,
    times: Annotated[list[str] | None, typer.Option()] = None,
    start: Annotated[float | None, typer.Option(parser=seconds)] = None,
    flag: Annotated[bool, typer.Option("--flag")] = False,
) -> dict[str, Any]:
    return dict(locals())


class Plain(PlainValues, typer.core.TyperCommand):
    """A command with values converted here."""


def parse(words: str, cls: type[typer.core.TyperCommand]) -> dict[str, Any]:
    app = typer.Typer(add_completion=False)
    app.command("every", cls=cls)(every_kind)
    command = typer.main.get_command(app)
    with command.make_context("every", words.split()) as context:
        return command.invoke(context)


RIGHT = [
    "a",
    "a b --text=-3 --count 4 --share 0",
    "a --share 50 --colour dark-blue --times x --times y",
    "--flag a --start 1:30 --count 1",
]


@pytest.mark.parametrize("words", RIGHT)
def test_values_are_what_typer_makes_of_them(words: str) -> None:
    plain, own = parse(words, Plain), parse(words, typer.core.TyperCommand)
    assert plain == own
    assert {name: type(value) for name, value in plain.items()} == {
        name: type(value) for name, value in own.items()
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "Missing argument"),
        ("a --count 0", "0 is not 1 or more"),
        ("a --count 1.5", "'1.5' is not a whole number"),
        ("a --share much", "'much' is not a number"),
        ("a --share nan", "nan is not in the range of 0 to 50"),
        ("a --share inf", "inf is not in the range of 0 to 50"),
        ("a --share -1", "-1 is not in the range of 0 to 50"),
        ("a --colour green", "'green' is not one of red, dark-blue"),
        ("a --start noon", "'noon' is not a time"),
    ],
)
def test_wrong_values_are_named(words: str, message: str) -> None:
    with pytest.raises(typer.BadParameter.__mro__[1]) as caught:  # click's class has two homes
        parse(words, Plain)
    assert caught.value.exit_code == 2  # type: ignore[attr-defined]
    assert message in caught.value.format_message()  # type: ignore[attr-defined]


def test_a_parameter_of_another_kind_is_left_to_typer() -> None:
    information = SimpleNamespace(parser=None, min=None, max=None)
    unknown = SimpleNamespace(
        type_descriptor=SimpleNamespace(annotation=complex, parameter_info=information), _runtime_param=None
    )
    older = SimpleNamespace(type=str)

    class Both:
        def get_params(self, ctx: Any) -> list[Any]:
            return [unknown, older]

    class Command(PlainValues, Both):
        """A command of Typer's with these two parameters."""

    assert Command().get_params(None) == [unknown, older]
    assert unknown._runtime_param is None
    assert not hasattr(older, "_runtime_param")
