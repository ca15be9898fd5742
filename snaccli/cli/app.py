"""The ``snac`` command: its commands put together, and one way out for every error."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from snaccli.cli import options
from snaccli.cli.commands import (
    bench,
    decode,
    encode,
    info,
    models,
    prepare,
    tokens_export,
    tokens_import,
    train,
    verify,
)
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import ExitStatus

__all__ = ["app", "run"]

Command = Callable[..., ExitStatus]

app = typer.Typer(
    name="snac",
    help="Turn audio into files of one to three kilobits per second, and back.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(
    help="List the models, fetch one, or describe one.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
tokens_app = typer.Typer(
    help="Write codes as tokens for language models, or read them back.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


def run(arguments: Sequence[str], console: Console | None = None) -> int:
    """Run the command line and return its exit status (see :class:`snaccli.errors.ExitStatus`).

    Args:
        arguments: without the program's name.
        console: the streams to write to; those of the process by default.
    """
    console = console or Console()
    return console.attempt(lambda: _parse_and_run(arguments, console))


def _parse_and_run(arguments: Sequence[str], console: Console) -> int:
    try:
        with console.as_standard_streams():
            status = app(list(arguments), prog_name="snac", standalone_mode=False, obj=console)
    except typer.Abort as abort:
        raise KeyboardInterrupt from abort
    except Exception as error:
        if not _is_usage_error(error):
            raise
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "snac"
        console.complain(f"{text.usage(error.format_message())}; see '{path} --help'")  # type: ignore[attr-defined]
        return ExitStatus.USAGE
    return int(status or 0)


def _is_usage_error(error: Exception) -> bool:
    # Typer carries its own copy of click since 0.16 and builds on click's before: the class has two homes.
    return hasattr(error, "format_message") and getattr(error, "exit_code", None) == ExitStatus.USAGE


def _set_up(
    console: Console,
    *,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """What every command does first; these are the options that it has beside its own."""
    console.json, console.quiet, console.verbose, console.debug = json, quiet, verbose, debug


_SHARED = list(inspect.signature(_set_up, eval_str=True).parameters.values())[1:]


def _guarded(command: Command) -> Command:
    """Return `command` with the options that all have, and with its errors told on one line."""

    @functools.wraps(command)
    def guarded(context: typer.Context, **values: Any) -> None:
        console: Console = context.obj
        _set_up(console, **{option.name: values.pop(option.name) for option in _SHARED})
        raise typer.Exit(console.attempt(lambda: command(context, **values)))

    own = inspect.signature(command, eval_str=True)
    parameters = [*own.parameters.values(), *_SHARED]
    guarded.__signature__ = own.replace(parameters=parameters)  # type: ignore[attr-defined]
    return guarded  # type: ignore[return-value]


def _add(group: typer.Typer, name: str, command: Command, examples: str) -> None:
    group.command(name, epilog=f"Examples:\n\n\b\n{examples.strip()}")(_guarded(command))


_add(app, "encode", encode.encode, encode.EXAMPLES)
_add(app, "decode", decode.decode, decode.EXAMPLES)
_add(app, "info", info.info, info.EXAMPLES)
_add(app, "verify", verify.verify, verify.EXAMPLES)
_add(app, "bench", bench.bench, bench.EXAMPLES)
_add(app, "prepare", prepare.prepare, prepare.EXAMPLES)
_add(app, "train", train.train, train.EXAMPLES)
_add(models_app, "list", models.list_models, models.LIST_EXAMPLES)
_add(models_app, "pull", models.pull, models.PULL_EXAMPLES)
_add(models_app, "push", models.push, models.PUSH_EXAMPLES)
_add(models_app, "show", models.show, models.SHOW_EXAMPLES)
app.add_typer(models_app, name="models")
_add(tokens_app, "export", tokens_export.export, tokens_export.EXAMPLES)
_add(tokens_app, "import", tokens_import.import_tokens, tokens_import.EXAMPLES)
app.add_typer(tokens_app, name="tokens")


@app.callback()
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from snac import __version__

        typer.echo(f"snac {__version__}")
        raise typer.Exit
    _help_without_command(context)


@models_app.callback()
@tokens_app.callback()
def _help_without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(ExitStatus.USAGE)
