"""The streams of one run of the command line, and what may be written to each of them.

Results go to standard output, everything else to standard error. The streams are handed in, so that a
test can call the command line as a function.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TextIO

from snaccli.cli.ui.text import REMEDIES, RESUMABLE, explain
from snaccli.errors import STDIO, ExitStatus, OutputError, SnacError, UsageError

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import RenderableType

__all__ = ["Console"]


class Console:
    """Standard output and error of one run, with the flags that say how much to write to them.

    Attributes:
        stdout: takes results.
        stderr: takes everything else.
        environ: the environment variables.
        quiet, verbose, json, debug: the options of these names.
        skips_existing: whether the command at hand has the option ``--skip-existing``.
        owns_process: whether the command line is the whole process, and not called by another program.
    """

    def __init__(
        self,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.stdout: TextIO = stdout or sys.stdout or _Closed()  # sys.stdout is None after >&-
        self.stderr: TextIO = stderr or sys.stderr or io.StringIO()
        self.environ = os.environ if environ is None else environ
        self.quiet = False
        self.verbose = False
        self.json = False
        self.debug = False
        self.skips_existing = False
        self.owns_process = False
        self._emitted = False
        self._live: tuple[RichConsole, AbstractContextManager[object]] | None = None

    @property
    def interactive(self) -> bool:
        """Whether standard error is a terminal on which bars can be redrawn."""
        return self.stderr.isatty() and self.environ.get("TERM", "") not in ("dumb", "unknown")

    def note(self, text: str) -> None:
        """Tells how the work goes: to standard error, unless quiet."""
        if not self.quiet:
            self._write_error(text)

    def detail(self, text: str) -> None:
        """Tells what only ``--verbose`` asks for."""
        if self.verbose:
            self.note(text)

    def error(self, error: BaseException, subject: str | None = None) -> None:
        """Tells of an error on one line; with ``--debug`` after its traceback."""
        if self.debug:
            self._write_error("".join(traceback.format_exception(error)).rstrip())
        self.complain(self.explain(error, subject))

    def explain(self, error: BaseException, subject: str | None = None) -> str:
        """Returns the line that tells of an error in the options of the command at hand."""
        return explain(error, subject, RESUMABLE if self.skips_existing else REMEDIES)

    def complain(self, text: str) -> None:
        """Tells of an error on one line, quiet or not."""
        self._write_error(f"snac: {text}")

    def result(self, text: str) -> None:
        """Writes a line of the result to standard output; nothing with ``--json``."""
        if not self.json:
            self.print(text)

    def print(self, text: str) -> None:
        """Writes `text` and a line end to standard output."""
        _write(self.stdout, text)

    def emit(self, value: Any) -> None:
        """Writes `value` as JSON to standard output; nothing without ``--json``."""
        if self.json:
            self._emitted = True
            self.print(json.dumps(value, indent=2))

    def table(self, table: RenderableType) -> None:
        """Writes a rich table to standard output; nothing with ``--json``."""
        if not self.json:
            self.rich(self.stdout).print(table)

    def rich(self, stream: TextIO, *, terminal: bool | None = None) -> RichConsole:
        """Returns a rich console on `stream`; imported here, because most runs do without."""
        from rich.console import Console as RichConsole

        width = None if stream.isatty() else _columns(self.environ)
        return RichConsole(
            file=stream,
            force_terminal=terminal,
            width=width,
            markup=False,
            highlight=False,
            emoji=False,
            _environ=self.environ,
        )

    @contextlib.contextmanager
    def live(self, rich: RichConsole, lock: AbstractContextManager[object]) -> Iterator[None]:
        """Writes notes and errors above the bars that are drawn on `rich`, always holding `lock`."""
        self._live = rich, lock
        try:
            yield
        finally:
            self._live = None

    def _write_error(self, text: str) -> None:
        if self._live is not None:
            rich, lock = self._live
            with lock:
                rich.print(text, soft_wrap=True)
        else:
            # A broken standard error must not end the work: there is nobody left to tell.
            with contextlib.suppress(OSError, ValueError):
                _write(self.stderr, text)

    @contextlib.contextmanager
    def as_standard_streams(self) -> Iterator[None]:
        """Lets what is printed in the usual way go to the streams of this console."""
        with contextlib.redirect_stdout(self.stdout), contextlib.redirect_stderr(self.stderr):
            yield

    def ended_by(self, error: BaseException) -> int:
        """Tells on one line of what ended a run early, and returns the exit status."""
        from snaccli.workers import interruption

        error = interruption(error) or error
        if isinstance(error, KeyboardInterrupt):
            from snaccli.training.launched import is_main

            remedy = getattr(error, "remedy", None)  # of training, which kept what it had done
            told = str(error) if remedy is None else f"{getattr(error, 'problem', '')}{REMEDIES[remedy]}"
            if is_main(self.environ):  # all processes of a launcher are interrupted, at any time
                self.complain(told or "interrupted")
            return getattr(error, "status", ExitStatus.INTERRUPTED)
        if not isinstance(error, BrokenPipeError):  # whose reader has gone away, as head does: its choice
            self.error(error)
        if isinstance(error, UsageError):
            return ExitStatus.USAGE
        if not isinstance(error, OSError) and not self._emitted:  # what failed to be written stays so
            with contextlib.suppress(SnacError, OSError):
                self.emit({"error": self.explain(error)})
        return ExitStatus.FAILED


class _Closed(io.StringIO):
    """In the place of a standard output that is closed: a run that has no result to tell does not mind."""

    def write(self, text: str) -> int:
        raise OutputError("is closed, and the result is lost: send it into a file or a pipe", STDIO)


def _columns(environ: Mapping[str, str]) -> int:
    # Tables that go to a file or a pipe are not folded to a width that nobody sees.
    columns = environ.get("COLUMNS", "")
    return int(columns) if columns.isdigit() and int(columns) > 0 else 160


def _write(stream: TextIO, text: str) -> None:
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()
