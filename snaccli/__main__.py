"""The ``snac`` program, also as ``python -m snaccli``."""

from __future__ import annotations

import sys

from snaccli.cli import process
from snaccli.cli.app import run
from snaccli.cli.ui.console import Console


def main() -> None:
    """Runs the command line with the arguments of the process, and exits with its status."""
    console = Console()
    process.start(console)
    status = run(sys.argv[1:], console)
    process.flush(console)
    sys.exit(status)


if __name__ == "__main__":
    main()
