"""The ``snac`` program, also as ``python -m snaccli``."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from types import FrameType

from snaccli.cli.app import run
from snaccli.cli.ui.console import Console


class _Terminated(KeyboardInterrupt):
    """Another signal that asks the program to end; it cleans up as for an interrupt."""

    def __init__(self, number: int) -> None:
        super().__init__("terminated")
        self.status = 128 + number


def main() -> None:
    """Runs the command line with the arguments of the process, and exits with its status."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, _terminate)
    if not sys.warnoptions and "--debug" not in sys.argv:
        warnings.simplefilter("ignore")  # those of the libraries are for programmers
    console = Console()
    console.owns_process = True
    status = run(sys.argv[1:], console)
    try:
        for stream in (sys.stdout, console.stderr):
            if stream is not None:
                stream.flush()
    except OSError:
        # The reader has gone away. What is left must not be written again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(status)


def _terminate(number: int, _: FrameType | None) -> None:
    raise _Terminated(number)


if __name__ == "__main__":
    main()
