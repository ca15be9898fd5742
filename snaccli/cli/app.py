"""The ``snac`` command: which commands there are, and how one is found, called and ended.

A command's module is imported when the command is called, so that each start pays for one command alone.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import typer
import typer.core
import typer.main

from snaccli.cli import options
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import ExitStatus, shown

__all__ = ["COMMANDS", "Entry", "run", "snac_command"]

Command = Callable[..., ExitStatus]


class Entry(NamedTuple):
    """Where a command is defined.

    Attributes:
        summary: its line in the list of commands; the docstring of the function begins with it.
        module: below ``snaccli.cli.commands``.
        function: what runs it.
        examples: the name of the module's constant with its examples.
    """

    summary: str
    module: str
    function: str
    examples: str = "EXAMPLES"


class Group(NamedTuple):
    """A command that has commands of its own.

    Attributes:
        summary: its line in the list of commands.
        commands: by name, in the order of the help.
    """

    summary: str
    commands: Mapping[str, Entry | Group]


SUMMARY = "Turn audio into files of one to three kilobits per second, and back."

COMMANDS: Mapping[str, Entry | Group] = {
    "encode": Entry("Turn audio into .snac files.", "encode", "encode"),
    "decode": Entry("Turn .snac files back into audio.", "decode", "decode"),
    "stream": Entry(
        "Turn tokens into audio while they come, or with --encode audio into tokens.", "stream", "stream"
    ),
    "info": Entry(
        "Tell what .snac files hold: model, length, bit rate.", "contents", "info", "INFO_EXAMPLES"
    ),
    "verify": Entry("Check that .snac files are whole.", "contents", "verify", "VERIFY_EXAMPLES"),
    "bench": Entry(
        "Measure bit rate, quality and speed on recordings, also beside other codecs.", "bench", "bench"
    ),
    "prepare": Entry(
        "Check recordings, split them into train/ and val/, and make them ready for training.",
        "prepare",
        "prepare",
    ),
    "train": Entry("Train a model, or fine-tune one, on folders made by 'snac prepare'.", "train", "train"),
    "prior": Group(
        "Learn what a model's tokens are like, for smaller files.",
        {
            "train": Entry(
                "Learn an entropy model for a model's tokens.", "prior", "train", "TRAIN_EXAMPLES"
            ),
            "show": Entry(
                "Tell which model a prior is for, and how it was learned.", "prior", "show", "SHOW_EXAMPLES"
            ),
        },
    ),
    "models": Group(
        "List the models, fetch one, or describe one.",
        {
            "list": Entry(
                "List the models with a name, and which are on this machine.",
                "models",
                "list_models",
                "LIST_EXAMPLES",
            ),
            "pull": Entry(
                "Fetch a model from the Hub, to work without network later.",
                "models",
                "pull",
                "PULL_EXAMPLES",
            ),
            "push": Entry("Publish a model of your own on the Hub.", "models", "push", "PUSH_EXAMPLES"),
            "show": Entry(
                "Tell a model's rate, strides, bit rate, and where it is.", "models", "show", "SHOW_EXAMPLES"
            ),
        },
    ),
    "tokens": Group(
        "Write codes as tokens for language models, or read them back.",
        {
            "export": Entry(
                "Write the codes of recordings as tokens for language models.",
                "tokens",
                "export",
                "EXPORT_EXAMPLES",
            ),
            "import": Entry(
                "Turn tokens back into .snac files, or into audio.",
                "tokens",
                "import_tokens",
                "IMPORT_EXAMPLES",
            ),
        },
    ),
}


def run(arguments: Sequence[str], console: Console | None = None) -> int:
    """Runs the command line and returns its exit status (see :class:`snaccli.errors.ExitStatus`).

    Args:
        arguments: the words behind the program's name.
        console: the streams to write to; those of the process by default.
    """
    console = console or Console()
    try:
        command = snac_command()
        try:
            with console.as_standard_streams():
                if "_SNAC_COMPLETE" in console.environ:  # a shell asks what may follow
                    command(list(arguments), prog_name="snac")
                with command.make_context("snac", list(arguments), obj=console) as context:
                    status = int(command.invoke(context) or 0)
        except typer.Exit as end:
            status = end.exit_code
        console.stdout.flush()
        return status
    except typer.Abort:
        return console.ended_by(KeyboardInterrupt())
    except (Exception, KeyboardInterrupt) as error:
        # Typer carries its own copy of click since 0.16 and builds on click's before: the class of what is
        # wrong with the words has two homes.
        if not hasattr(error, "format_message") or getattr(error, "exit_code", None) != ExitStatus.USAGE:
            return _ended(console, error)
        place = getattr(error, "ctx", None)
        path = place.command_path if place else "snac"
        told = text.usage(error.format_message()) + _hint(error, arguments)
        console.complain(f"{told}; see '{path} --help'")
        return ExitStatus.USAGE


def _ended(console: Console, error: BaseException) -> int:
    """Tells of what ended the run, and returns the exit status; nothing ends without a word."""
    try:
        return console.ended_by(error)
    except Exception as failure:
        console.complain(f"this is a defect of snac: {failure!r} while telling of {error!r}")
        return ExitStatus.FAILED


def _hint(error: BaseException, arguments: Sequence[str]) -> str:
    """What to do where the name of a file was taken for an option; empty where none was."""
    if type(error).__name__ != "NoSuchOption":
        return ""
    files = [word for word in arguments if word.startswith("-") and word != "-" and os.path.lexists(word)]
    return f"; the file of that name is written {shown('./' + files[0])}" if files else ""


def snac_command(name: str = "snac", group: Group | None = None) -> typer.core.TyperGroup:
    """Returns a group of commands as click knows it, none of which is imported yet.

    Args:
        name: its name on the command line.
        group: what it holds; all of ``snac`` by default: for a run, for the documentation and for tests.
    """

    class Lazy(_LazyGroup):
        entries = COMMANDS if group is None else group.commands

    whole = typer.Typer(
        cls=Lazy,
        help=group.summary if group else SUMMARY,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        add_completion=group is None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    whole.callback()(_start if group is None else _help_without_command)
    command: typer.core.TyperGroup = typer.main.get_command(whole)  # type: ignore[assignment]
    command.name = name
    return command


class _LazyGroup(options.PlainValues, typer.core.TyperGroup):
    """A group that imports a command when it is called or described."""

    entries: ClassVar[Mapping[str, Entry | Group]] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names of the commands, in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns a command as click knows it, None if there is none of that name.

        A command's module is imported here, and the options that all commands have join its own.
        """
        entry = self.entries.get(cmd_name)
        if cmd_name in self.commands or entry is None:
            return self.commands.get(cmd_name)
        if isinstance(entry, Group):
            self.commands[cmd_name] = snac_command(cmd_name, entry)
            return self.commands[cmd_name]
        module = importlib.import_module(f"snaccli.cli.commands.{entry.module}")
        function: Command = getattr(module, entry.function)

        @functools.wraps(function)
        def whole(context: typer.Context, **values: Any) -> ExitStatus:
            for option in _SHARED:
                setattr(context.obj, option.name, values.pop(option.name))
            context.obj.skips_existing = "skip_existing" in values
            return function(context, **values)

        own = inspect.signature(function, eval_str=True)
        parameters = [*own.parameters.values(), *_SHARED]
        whole.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
        alone = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
        alone.command(
            cmd_name,
            cls=_PlainCommand,
            epilog=f"Examples:\n\n\b\n{getattr(module, entry.examples).strip()}",
            context_settings={"help_option_names": ["-h", "--help"]},
        )(whole)
        self.commands[cmd_name] = typer.main.get_command(alone)
        return self.commands[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list of commands for the help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in self.entries.items()])


class _PlainCommand(options.PlainValues, typer.core.TyperCommand):
    """A command that is no group."""


_SHARED = [
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=option)
    for name, option in (
        ("json", options.Json),
        ("quiet", options.Quiet),
        ("verbose", options.Verbose),
        ("debug", options.Debug),
    )
]
"""The options that each command has beside its own, by the attributes of the console that they set."""


def _start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from snac import __version__

        typer.echo(f"snac {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        _help_without_command(context)


def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(ExitStatus.USAGE)
