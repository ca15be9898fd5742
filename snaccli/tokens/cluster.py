"""Export of recordings to shards by the workers of a cluster: a unit of work is a shard."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast

from snaccli.cluster import Done, UnitResult
from snaccli.codec.device import Device
from snaccli.errors import SnacError
from snaccli.io.files import OutputFile, open_output
from snaccli.tokens.files import draft
from snaccli.tokens.formats import FORMATS, RowWriter
from snaccli.tokens.recording import Form, NamedRecording
from snaccli.tokens.shards import shard_path
from snaccli.tokens.transfer import Exporter, companions

__all__ = ["ShardUnit", "ShardWork", "shard_units"]

_TOGETHER = 64  # recordings read before they are coded, on a GPU
_MEMORY = 32 << 20  # bytes of a shard held in memory; what exceeds them goes to the disk


@dataclass(frozen=True)
class ShardUnit:
    """One shard to be made.

    Attributes:
        shard: its path or URL.
        recordings: source, and path within the shard, of each.
    """

    shard: str
    recordings: tuple[tuple[str, str], ...]


def shard_units(
    recordings: Sequence[tuple[str, str]], folder: str, extension: str, most: int, first: int
) -> list[ShardUnit]:
    """Cuts recordings into shards, as :class:`snaccli.tokens.shards.ShardWriter` does.

    Args:
        recordings: source and path of each.
        folder: of the shards.
        extension: of their format.
        most: recordings in a shard.
        first: number of the first shard.
    """
    return [
        ShardUnit(shard_path(folder, first + n, extension), tuple(recordings[n * most : (n + 1) * most]))
        for n in range(-(-len(recordings) // most))
    ]


@dataclass
class ShardWork:
    """Makes shards; see ``snaccli.cluster.UnitWork``.

    Attributes:
        model: for all recordings, or None.
        device: see ``Codec.load``.
        threads: likewise.
        form: of the tokens.
        levels: so many of the coarsest only; None for all.
        channels: ``mono`` mixes audio down, ``keep`` codes each channel by itself.
        extension: of the shards' format.
        audio: whether recordings are audio, so that the model is wanted before the first is read.
    """

    model: str | None
    device: str
    threads: int
    form: Form
    levels: int | None
    channels: Literal["mono", "keep"]
    extension: str
    audio: bool = True

    def start(self) -> None:
        """Loads the model. Raises: ModelError: it cannot be had."""
        self._exporter = self._made()

    def _made(self) -> Exporter:
        from snaccli.codec import ModelPool

        models = ModelPool(self.model, device=self.device, threads=self.threads)
        exporter = Exporter(models, self.form, self.levels, self.channels)
        if self.audio or self.model is not None:
            exporter.for_audio()
        return exporter

    def __call__(self, unit: ShardUnit) -> UnitResult:
        """Makes a shard of those of its recordings that can be read; none if there are none.

        The shard appears under its name when it is whole, and takes the place of one that is there.
        """
        done: list[Done] = []
        with tempfile.SpooledTemporaryFile(max_size=_MEMORY, prefix="snac-") as spool:
            rows: RowWriter | None = None
            out = OutputFile(cast(BinaryIO, spool), unit.shard, seekable=True)
            for source, found in self._recordings(unit):
                try:
                    if not isinstance(found, NamedRecording):
                        raise found
                    told = draft(found, self.form)
                    rows = rows or FORMATS[self.extension].writer(out)
                    rows.write(told, companions(source) if self.extension == "tar" else ())
                    done.append(Done(source, found.duration_s))
                except (SnacError, OSError) as error:
                    done.append(Done(source, error=str(error)))
            if rows is not None:
                rows.close()
                spool.seek(0)
                with open_output(unit.shard, overwrite=True) as file:
                    shutil.copyfileobj(spool, cast(BinaryIO, file), 1 << 20)
        return UnitResult(unit.shard, tuple(done))

    def _recordings(self, unit: ShardUnit) -> Iterator[tuple[str, NamedRecording | SnacError | OSError]]:
        """Each source with its tokens, or why it has none; on a GPU many are coded together."""
        size = 1 if Device.parse(self.device).kind == "cpu" else _TOGETHER
        for low in range(0, len(unit.recordings), size):
            part = unit.recordings[low : low + size]
            for (source, _), found in zip(part, self._exporter.together(part), strict=True):
                yield source, found
