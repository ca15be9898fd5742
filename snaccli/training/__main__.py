"""``python -m snaccli.training CONFIG.toml FOLDER``: trains, or resumes where the folder has a checkpoint."""

from __future__ import annotations

import argparse
import json
import sys

from ..errors import ExitStatus, SnacError
from .config import TrainConfig
from .trainer import Trainer


def main() -> int:
    """Runs the training and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m snaccli.training", description=__doc__)
    parser.add_argument("config", help="TOML file, see examples/train/mini.toml")
    parser.add_argument("folder", help="for checkpoints and the log")
    parser.add_argument("--export", metavar="MODEL", help="folder for the finished model, to be used with -m")
    arguments = parser.parse_args()
    try:
        trainer = Trainer(TrainConfig.from_toml(arguments.config), arguments.folder)
        if trainer.resume():
            print(f"resumed at step {trainer.step}", flush=True)
        trainer.run(lambda row: print(json.dumps(row), flush=True))
        if arguments.export:
            print(f"model written to {trainer.export(arguments.export)}")
    except SnacError as error:
        print(f"snac: {error}", file=sys.stderr)
        return ExitStatus.FAILED
    except KeyboardInterrupt:
        print("snac: interrupted; run the same command again to resume", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    return ExitStatus.OK


if __name__ == "__main__":
    sys.exit(main())
