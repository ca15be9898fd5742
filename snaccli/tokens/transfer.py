"""From file to file: recordings to files of tokens, and back."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from snaccli.audio import AudioWriter, open_audio
from snaccli.codec import Codec, ModelPool, Recording, loads
from snaccli.codec.api import save
from snaccli.errors import LevelsError, OutputError, SnacError
from snaccli.io.elsewhere import Part, key
from snaccli.io.files import check_output, is_stdio, open_input, open_output, shown
from snaccli.progress import Listener, Progress, rising
from snaccli.tokens.files import Line, draft, read, read_line, to_json, to_npz
from snaccli.tokens.formats import format_of
from snaccli.tokens.recording import PLAIN, Draft, Form, NamedRecording

__all__ = ["ExportResult", "Exporter", "ImportResult", "Importer", "companions", "export_file", "import_file"]


_MAGIC = b"snac"
_SHORT_SECONDS = 60  # longer recordings fill a GPU by themselves


@dataclass(frozen=True)
class ExportResult:
    """What an export did: names, levels and tokens of all channels, Hz, samples a channel, seconds, bytes."""

    source: str
    output: str
    model: str
    fingerprint: str
    levels: int
    tokens: int
    channels: int
    sample_rate: int
    samples: int
    duration_s: float
    bytes: int
    seconds: float


@dataclass(frozen=True)
class ImportResult:
    """What an import did: names, levels and tokens of all channels, Hz, samples a channel, seconds."""

    source: str
    output: str
    model: str
    levels: int
    tokens: int
    channels: int
    sample_rate: int
    samples: int
    duration_s: float
    seconds: float


@dataclass(frozen=True)
class Exporter:
    """How recordings become tokens; one for many files.

    Attributes:
        models: for audio, and for the ``.snac`` files that name them.
        form: of the tokens.
        levels: so many of the coarsest only; None for all.
        channels: ``mono`` mixes audio down, ``keep`` codes each channel by itself.
    """

    models: ModelPool
    form: Form = PLAIN
    levels: int | None = None
    channels: Literal["mono", "keep"] = "mono"

    def recording(self, source: str | Path, path: str, progress: Listener = None) -> NamedRecording:
        """Returns the tokens of an audio or ``.snac`` file, which is opened once: it may be a pipe.

        Raises:
            AudioError, ContainerError: it cannot be read, or is damaged.
            ModelError: its model cannot be had.
            WeightsMismatchError: the model is not the one it was made with.
            LevelsError: it has not as many levels.
        """
        with open_input(source) as file:
            coded = file.read(len(_MAGIC)) == _MAGIC
            file.seek(0)
            return (self._of_snac if coded else self._of_audio)(source, file, path, rising(progress))

    def _of_snac(self, source: str | Path, file: BinaryIO, path: str, progress: Progress) -> NamedRecording:
        coded = loads(file, path=source)
        used = coded.levels(self.levels)
        codec = self.models.for_file(coded.header.model, coded.header.fingerprint.hex())
        return NamedRecording.of(coded.decode(codec, used, progress=progress), path)

    def _of_audio(self, source: str | Path, file: BinaryIO, path: str, progress: Progress) -> NamedRecording:
        with open_audio(source, file=file) as reader:
            codec = self.for_audio()
            blocks, count = reader.mixed(self.channels)
            expected = reader.expected_frames
            found = codec.encode(blocks, reader.rate, count, expected=expected, progress=progress)
        mixed_from = reader.channels if count < reader.channels else None
        return NamedRecording.of(found.coarsest(self.levels), path, mixed_from)

    def for_audio(self) -> Codec:
        """Returns the model for audio.

        Raises:
            ModelError: it cannot be had.
            LevelsError: it has not as many levels.
        """
        codec = self.models.get()
        if self.levels is not None and not 1 <= self.levels <= len(codec.strides):
            raise LevelsError(self.levels, len(codec.strides), f"the model {codec.name!r}")
        return codec

    def together(self, sources: Sequence[tuple[str, str]]) -> list[NamedRecording | SnacError | OSError]:
        """Returns the tokens of several recordings; short ones go through :meth:`Codec.encode_many`.

        Args:
            sources: name of each, and its path in the file of tokens.

        Returns:
            a recording for each, in order, or why it failed.
        """
        found: list[NamedRecording | SnacError | OSError | None] = []
        short: list[tuple[int, tuple[np.ndarray, int], int | None]] = []
        for number, (source, path) in enumerate(sources):
            try:
                signal = self._short(source)
                found.append(None if signal else self.recording(source, path))
                if signal:
                    short.append((number, *signal))
            except (SnacError, OSError) as error:
                found.append(error)
        coded = self.for_audio().encode_many([signal for _, signal, _ in short]) if short else []
        for (number, _, mixed_from), recording in zip(short, coded, strict=True):
            kept = recording.coarsest(self.levels)
            found[number] = NamedRecording.of(kept, sources[number][1], mixed_from)
        return [each for each in found if each is not None]

    def _short(self, source: str) -> tuple[tuple[np.ndarray, int], int | None] | None:
        """Returns samples and rate of a short audio file, and channels mixed down; None of other files."""
        with open_input(source) as file:
            if file.read(len(_MAGIC)) == _MAGIC:
                return None
            with open_audio(source, file=file) as reader:
                expected = reader.expected_frames
                if expected is None or expected > _SHORT_SECONDS * reader.rate:
                    return None
                blocks, count = reader.mixed(self.channels)
                samples = np.concatenate([np.zeros((0, count), np.float32), *blocks])
                return (samples, reader.rate), reader.channels if count < reader.channels else None

    def to_file(
        self,
        source: str | Path,
        output: str | Path,
        *,
        path: str | None = None,
        overwrite: bool = False,
        progress: Listener = None,
    ) -> ExportResult:
        """Writes one recording's tokens to a file: an ``.npz`` by its ending, or else JSON."""
        started = time.perf_counter()
        check_output(output, source=source, overwrite=overwrite)
        report = rising(progress)
        recording = self.recording(source, path or os.path.basename(source), report)
        binary = str(output).lower().endswith(".npz")
        told = draft(recording, self.form)
        data = to_npz(told) if binary else to_json(told)
        with open_output(output, source=source, overwrite=overwrite) as file:
            file.write(data)
        report(1.0)
        return self.result(recording, source, output, len(data), started)

    def result(
        self, recording: NamedRecording, source: str | Path, output: str | Path, size: int, started: float
    ) -> ExportResult:
        """Returns what is told of a recording that was written."""
        codes = recording.codes
        return ExportResult(
            source=str(source),
            output=str(output),
            model=recording.model,
            fingerprint=recording.fingerprint,
            levels=len(codes.levels),
            tokens=codes.tokens,
            channels=codes.channels,
            sample_rate=recording.rate,
            samples=recording.samples,
            duration_s=recording.duration_s,
            bytes=size,
            seconds=time.perf_counter() - started,
        )


@dataclass(frozen=True)
class Importer:
    """How tokens become recordings; one for many files.

    Attributes:
        models: those that the files name.
        form: how ids were made, where a file does not say so.
        audio_format: an ending that overrides the outputs' own; ``snac`` for ``.snac`` files.
        overwrite: whether existing outputs may be replaced.
    """

    models: ModelPool
    form: Form = PLAIN
    audio_format: str | None = None
    overwrite: bool = False

    def from_file(self, source: str | Path, output: str | Path, *, progress: Listener = None) -> ImportResult:
        """Turns a file of one recording's tokens into a ``.snac`` or audio file."""
        check_output(output, source=source, overwrite=self.overwrite)
        return self._convert(read(source), source, output, progress)

    def from_line(
        self, source: str | Path, line: Line, output: str | Path, *, progress: Listener = None
    ) -> ImportResult:
        """Turns one recording of a shard into a ``.snac`` or audio file."""
        check_output(output, source=source, overwrite=self.overwrite)
        return self._convert(self._read(source, line), source, output, progress)

    def _read(self, source: str | Path, line: Line) -> Draft:
        kind = format_of(str(source))
        return read_line(source, line) if kind is None else kind.read(source, line)

    def _convert(
        self, draft: Draft, source: str | Path, output: str | Path, progress: Listener
    ) -> ImportResult:
        started = time.perf_counter()
        codec = self.models.for_file(draft.facts.get("model"))
        recording = draft.complete(codec, self.form)
        report = rising(progress)
        ending = (self.audio_format or Path(output).suffix).lower().lstrip(".")
        if ending == "snac" or (is_stdio(output) and not ending):
            save(recording, codec, output, source=source, overwrite=self.overwrite, progress=report)
        else:
            self._write_audio(recording, codec, source, output, report)
        report(1.0)
        return ImportResult(
            source=str(source),
            output=str(output),
            model=recording.model,
            levels=len(recording.codes.levels),
            tokens=recording.codes.tokens,
            channels=recording.codes.channels,
            sample_rate=recording.rate,
            samples=recording.samples,
            duration_s=recording.duration_s,
            seconds=time.perf_counter() - started,
        )

    def _write_audio(
        self,
        recording: Recording,
        codec: Codec,
        source: str | Path,
        output: str | Path,
        progress: Progress,
    ) -> None:
        """Decodes a recording to an audio file of its rate and length; as ``snac decode`` would."""
        with AudioWriter(
            output,
            recording.rate,
            recording.channels,
            frames=recording.samples,
            audio_format=self.audio_format,
            source=source,
            overwrite=self.overwrite,
        ) as writer:
            for block in codec.decode(recording, progress=progress):
                writer.write(block)


def companions(source: str) -> tuple[tuple[str, bytes], ...]:
    """Returns what stands beside a recording in a tar, such as its transcript: extensions and bytes."""
    if not isinstance(source, Part):
        return ()
    found = []
    with open_input(source.archive) as file:
        for name, offset, size in source.beside:
            file.seek(offset)
            found.append((name[len(key(name)) + 1 :], file.read(size)))
    return tuple(found)


def export_file(
    source: str | Path,
    output: str | Path | None = None,
    *,
    model: str | Codec | None = None,
    form: Form | None = None,
    levels: int | None = None,
    channels: Literal["mono", "keep"] = "mono",
    overwrite: bool = False,
    progress: Listener = None,
) -> ExportResult:
    """Writes the tokens of one recording.

    Args:
        source: an audio file, or a ``.snac`` file (``-`` for one on standard input).
        output: ``.npz`` or ``.json``; by default beside the source, as ``.json``.
        model: a name, folder or loaded codec; by default the one that a ``.snac`` file names, and the default
            model for audio.
        form: nested, interleaved, with offsets; nested by default.
        levels: so many of the coarsest only.
        channels: ``mono`` mixes audio down, ``keep`` codes each channel by itself.
        overwrite: whether an existing output may be replaced.
        progress: called with the fraction done, 0 to 1.

    Raises:
        SnacError: a named subclass for whatever the user can mend; no output is left behind.
    """
    exporter = Exporter(ModelPool(model), form or PLAIN, levels, channels)
    if output is None:
        output = source if is_stdio(source) else Path(source).with_suffix(".json")
    if not is_stdio(output) and Path(output).suffix.lower() not in (".npz", ".json", ".jsonl"):
        raise OutputError(
            f"{shown(output)}: tokens are written as .npz or .json; choose one of these endings"
        )
    return exporter.to_file(source, output, overwrite=overwrite, progress=progress)


def import_file(
    source: str | Path,
    output: str | Path | None = None,
    *,
    model: str | Codec | None = None,
    form: Form | None = None,
    overwrite: bool = False,
    progress: Listener = None,
) -> ImportResult:
    """Turns the tokens of one recording into a ``.snac`` file, or into audio.

    Args:
        source: ``.npz`` or JSON as ``export_file`` writes it, or a JSON list of codes; ``-`` for standard
            input.
        output: a ``.snac`` file or, with any other ending, audio; by default beside the source, as ``.snac``.
        model: a name, folder or loaded codec; by default the one that the file names, if that is a known one.
        form: how ids were made, where the file does not say so.
        overwrite: whether an existing output may be replaced.
        progress: called with the fraction done, 0 to 1.

    Raises:
        SnacError: a named subclass for whatever the user can mend; no output is left behind.
    """
    if output is None:
        output = source if is_stdio(source) else Path(source).with_suffix(".snac")
    importer = Importer(ModelPool(model), form or PLAIN, overwrite=overwrite)
    return importer.from_file(source, output, progress=progress)
