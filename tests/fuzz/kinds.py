"""The kinds by their names."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz.cases import Kind

NAMES = ("snac", "prior", "tokens", "checkpoint", "audio", "training-checkpoint")


def kind_of(name: str, folder: Path) -> Kind:
    """Makes a kind with its originals; imports what it needs only."""
    if name == "snac":
        from tests.fuzz.snac_files import SnacFiles

        return SnacFiles(folder)
    if name == "prior":
        from tests.fuzz.priors import Priors

        return Priors(folder)
    if name == "tokens":
        from tests.fuzz.tokens import Tokens

        return Tokens(folder)
    if name == "checkpoint":
        from tests.fuzz.checkpoints import Checkpoints

        return Checkpoints(folder)
    if name == "audio":
        from tests.fuzz.audio import Audio

        return Audio(folder)
    if name == "training-checkpoint":
        from tests.fuzz.training import TrainingCheckpoints

        return TrainingCheckpoints(folder)
    raise ValueError(f"there is no kind {name!r}, but {', '.join(NAMES)}")
