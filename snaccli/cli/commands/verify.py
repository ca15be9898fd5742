"""``snac verify``: whether ``.snac`` files are whole."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from snaccli.cli import options
from snaccli.cli.plan import find_sources, is_snac
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import ContainerError, ExitStatus, SnacError
from snaccli.io.names import shown

EXAMPLES = """
snac verify song.snac
snac verify -q archive && echo all whole
"""


def verify(
    context: typer.Context,
    files: Annotated[list[str], typer.Argument(metavar="FILE", help=options.SNAC_FILES)],
) -> ExitStatus:
    """Check that .snac files are whole.

    Reads every byte, writes nothing, needs no model.
    """
    console: Console = context.obj
    sources = find_sources(files, wanted=is_snac, kind=".snac file")
    values: list[dict[str, Any]] = []

    def damaged(name: str, error: Exception) -> None:
        console.error(error, name)
        values.append({"path": name, "ok": False, "error": text.explain(error)})

    for name, error in sources.problems:
        damaged(name, error)
    for name, _ in sources.files:
        try:
            _verify(name)
        except (SnacError, OSError) as error:
            damaged(name, error)
            continue
        values.append({"path": name, "ok": True})
        if not console.quiet:
            console.result(f"{shown(name)}: ok")
    bad = sum(not value["ok"] for value in values)
    if sources.batch:
        console.note(
            f"{len(values) - bad} of {text.count(len(values), 'file')} whole"
            + (f", {bad} not" if bad else "")
        )
    console.emit(values if sources.batch else values[0])
    return ExitStatus.FAILED if bad else ExitStatus.OK


def _verify(name: str) -> None:
    from snaccli.container import verify as verify_container
    from snaccli.io.files import open_input

    with open_input(name, error=ContainerError) as file:
        verify_container(file)
