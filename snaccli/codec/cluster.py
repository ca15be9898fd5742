"""Recordings to ``.snac`` files by the workers of a cluster: a unit of work is some tens of files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from snaccli.cluster import Done, UnitResult
from snaccli.codec.api import encode_file
from snaccli.codec.pool import ModelPool
from snaccli.errors import SnacError
from snaccli.io.elsewhere import is_url
from snaccli.io.files import make_folder

__all__ = ["EncodeUnit", "EncodeWork", "encode_units"]

_FILES = 32  # in a unit


@dataclass(frozen=True)
class EncodeUnit:
    """Files to be made.

    Attributes:
        recordings: source and output of each.
    """

    recordings: tuple[tuple[str, str], ...]


def encode_units(files: Sequence[tuple[str, str]]) -> list[EncodeUnit]:
    """Cuts pairs of source and output into units."""
    return [EncodeUnit(tuple(files[low : low + _FILES])) for low in range(0, len(files), _FILES)]


@dataclass
class EncodeWork:
    """Encodes files; see ``snaccli.cluster.UnitWork``.

    Attributes:
        model: see ``encode_file``.
        device: likewise.
        threads: likewise.
        channels: likewise.
        prior: likewise; a file must have the same name for all workers.
        rate_distortion: likewise.
    """

    model: str
    device: str
    threads: int
    channels: Literal["mono", "keep"]
    prior: bool | str = True
    rate_distortion: float = 0.0

    def start(self) -> None:
        """Loads the model and its prior.

        Raises:
            ModelError: it cannot be had.
            PriorError: likewise the prior.
        """
        self._models = ModelPool(self.model, device=self.device, threads=self.threads, prior=self.prior)
        _ = self._models.get().prior

    def __call__(self, unit: EncodeUnit) -> UnitResult:
        """Encodes the files of a unit; one that is there is replaced: the unit may have been begun before."""
        done = []
        for source, output in unit.recordings:
            try:
                if not is_url(output):
                    make_folder(os.path.dirname(output))
                made = encode_file(
                    source,
                    output,
                    model=self._models,
                    channels=self.channels,
                    rate_distortion=self.rate_distortion,
                    overwrite=True,
                )
                done.append(Done(source, made.duration_s))
            except (SnacError, OSError) as error:
                done.append(Done(source, error=str(error)))
        return UnitResult(unit.recordings[0][1], tuple(done))
