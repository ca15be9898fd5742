"""A finished run as a model: configuration, weights, and a card that says how it was made."""

from __future__ import annotations

from pathlib import Path

from snac.checkpoint import save_checkpoint
from snac.fingerprint import fingerprint

from ..errors import OutputError
from ..files import open_output
from .card import CARD, model_card
from .loop import Trainer
from .state import BEST, TrainingError, read_checkpoint


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
    weights, step = trainer.model.state_dict(), trainer.step
    if trainer.average is not None:
        weights = trainer.average.weights
    best = (
        read_checkpoint(trainer.folder / BEST)
        if trainer.adversary is None and trainer.progress.last
        else None
    )
    if best is not None:
        try:
            weights, step = best["model"], int(best["step"])
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{trainer.folder / BEST}: is no checkpoint of a run") from error
    save_checkpoint(folder, trainer.model.config, weights, half=trainer.config.half)
    stored = {name: tensor.float() for name, tensor in weights.items()}
    if trainer.config.half:
        from snac.checkpoint import load_state_dict

        stored = load_state_dict(folder / "model.safetensors")
    print_of_weights = fingerprint(trainer.model.config, stored).hex()
    text = model_card(trainer, step, print_of_weights)
    try:
        with open_output(folder / CARD, overwrite=True) as out:
            out.write(text.encode())
    except OutputError as error:
        raise TrainingError(str(error)) from error
    return folder
