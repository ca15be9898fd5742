"""A finished run as a model: configuration, weights, and a card that says how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from snac.hub.checkpoint import load_state_dict, save_checkpoint
from snac.hub.fingerprint import fingerprint
from snac.hub.registry import WEIGHTS_FILES
from snaccli.errors import OutputError
from snaccli.io.files import open_output
from snaccli.training.card import CARD, model_card
from snaccli.training.loop import Trainer
from snaccli.training.state import BEST, TrainingError, read_checkpoint


def export(trainer: Trainer, folder: str | Path) -> Path:
    """Writes the model of a run, usable at once as ``-m FOLDER`` and by the published package.

    With discriminators it is the model as it is now: they make audio better in ways that validation does not
    measure. Without, it is the one that validated best. Discriminators are not part of it.

    Returns:
        the folder.

    Raises:
        ModelError: the folder cannot be written, or a value is too large for 16 bits.
        TrainingError: the best checkpoint is damaged.
    """
    folder = Path(folder)
    weights, step = _chosen(trainer)
    save_checkpoint(folder, trainer.model.config, weights, half=trainer.config.half)
    stored = load_state_dict(folder / WEIGHTS_FILES[0])  # as rounded to 16 bits, where that is asked for
    text = model_card(trainer, step, fingerprint(trainer.model.config, stored).hex())
    try:
        with open_output(folder / CARD, overwrite=True) as out:
            out.write(text.encode())
    except OutputError as error:
        raise TrainingError(str(error)) from error
    return folder


def _chosen(trainer: Trainer) -> tuple[Mapping[str, Tensor], int]:
    """The weights to export, and the step they are from."""
    best = None
    if trainer.adversary is None and trainer.progress.last:
        best = read_checkpoint(trainer.folder / BEST)
    if best is not None:
        try:
            return best["model"], int(best["step"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{trainer.folder / BEST}: is no checkpoint of a run") from error
    if trainer.average is not None:
        return trainer.average.weights, trainer.step
    return trainer.model.state_dict(), trainer.step
