"""A finished run as a model: configuration, weights, and a card that says how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from snac.config import ModelConfig, SpectralConfig, WaveformConfig
from snac.hub.checkpoint import read_weights, save_checkpoint
from snac.hub.registry import WEIGHTS_FILES
from snac.hub.state import fingerprint
from snaccli.errors import OutputError
from snaccli.io.files import open_output
from snaccli.training.loop import Trainer
from snaccli.training.state import BEST, TrainingError, checked_count, demand_tensors, read_checkpoint

CARD = "README.md"

_HEAD = """\
---
library_name: snac
tags:
- audio
- audio-codec
- snac
---

# {name}

A SNAC model, trained with `snac train`. Use it with `snac encode talk.wav -m FOLDER`, or in Python:

```python
from snac import SNAC

model = SNAC.from_pretrained("FOLDER or owner/name").eval()
```
"""


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
    stored = read_weights(folder / WEIGHTS_FILES[0])  # as rounded to 16 bits, where that is asked for
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
            demand_tensors(best["model"], trainer.model.state_dict(), "the weights")
            return best["model"], checked_count(best["step"], "step")
        except (KeyError, TypeError, ValueError) as error:
            raise TrainingError(f"{trainer.folder / BEST}: is no checkpoint of a run") from error
    if trainer.average is not None:
        return trainer.average.weights, trainer.step
    return trainer.model.state_dict(), trainer.step


def model_card(trainer: Trainer, step: int, fingerprint: str) -> str:
    """The card's text: architecture, data, training, validation beside the baseline.

    Args:
        trainer: the run.
        step: whose weights are exported.
        fingerprint: of these, 16 hex digits.
    """
    parts = [
        _HEAD.format(name=trainer.folder.resolve().name),
        _architecture(trainer.model.config, sum(p.numel() for p in trainer.model.parameters()), fingerprint),
        _training(trainer, step),
        _validation(trainer),
        "## Licence\n\nTo be stated by whoever publishes it, by the licences of the training recordings.\n",
    ]
    return "\n".join(part for part in parts if part)


def _architecture(config: ModelConfig, parameters: int, fingerprint: str) -> str:
    rows = [
        ("audio", f"{config.sampling_rate} Hz, mono"),
        *_form(config),
        (
            "tokens",
            f"{len(config.vq_strides)} levels, strides {_spaced(config.vq_strides)}, "
            f"{config.codebook_size} codewords each: {config.token_rate:.1f} a second",
        ),
        ("raw bit rate", f"{config.raw_bitrate / 1000:.2f} kbit/s"),
        ("parameters", f"{parameters / 1e6:.2f} M"),
        ("fingerprint", f"`{fingerprint}`"),
    ]
    return _table(("", ""), rows)


def _form(config: ModelConfig) -> list[tuple[str, str]]:
    """What only models of this form have."""
    if isinstance(config, WaveformConfig):
        window = config.attn_window_size
        return [
            ("encoder", f"{config.encoder_dim} channels, strides {_spaced(config.encoder_rates)}"),
            ("decoder", f"{config.decoder_dim} channels, rates {_spaced(config.decoder_rates)}"),
            ("attention", f"windows of {window} frames" if window else "none"),
        ]
    assert isinstance(config, SpectralConfig)
    stacks = (("encoder", config.encoder), ("decoder", config.decoder))
    return [
        ("form", f"spectral, {config.hop_length} samples a frame, windows of {config.window_length}"),
        *((name, f"{size.blocks} blocks of {size.dim} / {size.hidden} channels") for name, size in stacks),
    ]


def _training(trainer: Trainer, step: int) -> str:
    config = trainer.config
    hours = trainer.sampler.samples / trainer.rate / 3600
    sources = ", ".join(f"{Path(path).name} ({share:g})" for path, share in config.data.train.items())
    started = f"from `{config.init}`" if config.init else "from scratch"
    frozen = f", with {', '.join(config.freeze)} frozen" if config.freeze else ""
    stages = "; ".join(
        f"{part.steps} steps of {part.batch} x {part.segment / trainer.rate:.2f} s"
        for part in trainer.schedule.parts
    )
    weights = ", ".join(
        f"{name} {getattr(config.weights, name):g}"
        for name in config.weights.__dataclass_fields__
        if getattr(config.weights, name)
    )
    lines = [
        "## Training\n",
        f"- Trained {started}{frozen}; these are the weights after step {step} of {trainer.schedule.steps}.",
        f"- Data: {sources}; {hours:.2f} hours.",
        f"- Stages: {stages}.",
        f"- Losses and their weights: {weights}.",
        f"- AdamW, learning rate {config.learning_rate:g}, {config.precision}, seed {config.seed}"
        + (f", averaged weights ({config.ema:g})." if config.ema else "."),
    ]
    return "\n".join(lines) + "\n"


def _validation(trainer: Trainer) -> str:
    rows = trainer.progress.table()
    if not rows:
        return ""
    measured = [row[name] for row in rows for name in ("baseline", "last", "best")]
    losses = trainer.config.weights.reconstruction()  # some may have had no weight when it was measured
    names = [name for name in losses if all(name in metrics for metrics in measured)]
    head = ("segment", "", "loss", *names)
    lines: list[tuple[str, ...]] = []
    for row in rows:
        for name in ("baseline", "last", "best"):
            figures = tuple(f"{row[name][key]:.4f}" for key in ("loss", *names))
            lines.append((f"{row['seconds']:.2f} s", name, *figures))
    best = max(row["improvement_percent"] for row in rows)
    told = f"\nThe loss on recordings not trained on is {best:.1f} % below that of the starting weights.\n"
    return "## Validation\n\n" + _table(head, lines) + told


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _spaced(values: tuple[int, ...]) -> str:
    return " ".join(map(str, values))
