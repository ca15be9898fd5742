"""The ``snac`` program, also as ``python -m snaccli``."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Runs the command line with the arguments of the process, and exits with its status."""
    # An interrupt while the rest of the program is imported ends it at once, without a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from snaccli.cli import process
    from snaccli.cli.app import run
    from snaccli.cli.ui.console import Console

    console = Console()
    fate = process.start(console)
    status = run(sys.argv[1:], console)
    process.flush(console)
    sys.exit(fate.settle(status))


if __name__ == "__main__":
    main()
