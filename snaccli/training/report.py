"""Where the figures of a run go: a log of JSON lines, and TensorBoard where it is installed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from snaccli.errors import OutputError
from snaccli.io.files import cause, open_output, shown

LOG = "log.jsonl"

Row = dict[str, Any]


class Report(Protocol):
    """Told how a run goes."""

    def row(self, row: Row) -> None:
        """Figures of a step: losses, or ``validation``, or what happened to the codebooks."""

    def audio(self, step: int, name: str, samples: np.ndarray, rate: int) -> None:
        """Audio (samples,) float32 as decoded at a step."""

    def close(self) -> None:
        """The run has ended, for now."""


class JsonLog:
    """log.jsonl in the run's folder: a row a line. On resuming, rows after the checkpoint are dropped.

    Raises:
        OutputError: the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOG

    def row(self, row: Row) -> None:
        """Appends the row."""
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise OutputError(f"cannot write {shown(self._path)}: {cause(error)}") from error

    def forget_after(self, step: int) -> None:
        """Drops the rows of later steps, which are about to be done again; see the class for errors."""
        if not self._path.exists():
            return
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line).get("step", 0) <= step:
                    kept.append(line + "\n")
            except (ValueError, AttributeError):
                continue  # cut off by a crash
        with open_output(self._path, overwrite=True) as out:
            out.write("".join(kept).encode())

    def audio(self, step: int, name: str, samples: np.ndarray, rate: int) -> None:
        """Nothing: a log has no sound."""

    def close(self) -> None:
        """Nothing is left open."""


class TensorBoard:
    """Scalars, audio and spectrograms for TensorBoard, in the folder ``tensorboard``.

    Raises:
        OutputError: the disk refuses, now or before: a thread of TensorBoard's own does the writing.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._folder = folder / "tensorboard"
        with self._named_errors():
            self._writer: Any = SummaryWriter(str(self._folder), purge_step=step or None)

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(f"cannot write {shown(self._folder)}: {cause(error)}") from error

    @staticmethod
    def installed() -> bool:
        """Whether the package is there; without it a run has its log all the same."""
        import importlib.util

        return importlib.util.find_spec("tensorboard") is not None

    def row(self, row: Row) -> None:
        """Each number of the row as a scalar."""
        with self._named_errors():
            self._add(row, row.get("step", 0))

    def _add(self, row: Row, step: int) -> None:
        for name, value in row.items():
            group = "validation" if name == "validation" else "train"
            values = value.items() if isinstance(value, dict) else [(name, value)]
            for key, number in values:
                if isinstance(number, list):
                    for level, part in enumerate(number):
                        self._writer.add_scalar(f"{group}/{key}/{level}", part, step)
                elif isinstance(number, (int, float)) and key != "step":
                    self._writer.add_scalar(f"{group}/{key}", number, step)

    def audio(self, step: int, name: str, samples: np.ndarray, rate: int) -> None:
        """The sound and its spectrogram."""
        with self._named_errors():
            self._writer.add_audio(name, samples[None], step, sample_rate=rate)
            self._writer.add_image(f"{name}/spectrogram", spectrogram(samples)[None], step)

    def close(self) -> None:
        """Writes out what is held back."""
        with self._named_errors():
            self._writer.close()


def spectrogram(samples: np.ndarray, window: int = 512) -> np.ndarray:
    """Magnitudes from -100 to 0 dB as 0 to 1, low frequencies at the bottom: (window / 2, frames) float32."""
    padded = np.pad(samples, (0, max(0, window - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[:: window // 4]
    power = np.abs(np.fft.rfft(frames * np.hanning(window))) * 4 / window
    level = 20 * np.log10(np.maximum(power, 1e-5)) / 100 + 1
    return np.asarray(np.clip(level, 0, 1).T[:0:-1], dtype=np.float32)
