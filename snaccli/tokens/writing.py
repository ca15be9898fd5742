"""A recording's tokens as JSON or as an ``.npz``. Knows no torch."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from snaccli.tokens.errors import TokenFileError
from snaccli.tokens.reading import MAX_JSON_BYTES
from snaccli.tokens.recording import MAX_TOKENS, Draft, Form, NamedRecording

__all__ = ["draft", "facts", "json_line", "to_json", "to_npz"]


def facts(recording: NamedRecording, form: Form) -> dict[str, Any]:
    """What a file says besides the tokens, the path first, as JSON values."""
    codes = recording.codes
    values: dict[str, Any] = {
        "path": recording.path,
        "model": recording.model,
        "fingerprint": recording.fingerprint,
        "rate": recording.rate,
        "samples": recording.samples,
        "channels": codes.channels,
    }
    if recording.mixed_from is not None:
        values["mixed_from"] = recording.mixed_from
    values |= {
        "model_rate": recording.model_rate,
        "codebook_size": codes.codebook_size,
        "strides": list(codes.strides),
        "layout": "interleaved" if form.interleaved else "nested",
    }
    if form.interleaved:
        values |= {"offsets": form.offsets, "start_id": form.start_id}
    return values


def draft(recording: NamedRecording, form: Form) -> Draft:
    """A recording as a file says it: its tokens in this form, and the facts.

    Raises:
        UsageError: the ids would be too large.
    """
    return Draft(form.sequences(recording.codes), form.interleaved, facts(recording, form))


def to_json(recording: NamedRecording, form: Form) -> bytes:
    """The recording as JSON on one line, with the line end; see :func:`json_line`."""
    return json_line(draft(recording, form))


def json_line(told: Draft) -> bytes:
    """A recording as JSON on one line, with the line end.

    ``codes`` is a list of ids, or a list of lists, one a level; of several channels a list of these.

    Raises:
        TokenFileError: it would be larger than a file that can be read again.
    """
    channels: list[Any] = []
    for channel in range(len(told.sequences[0])):
        rows = [sequence[channel].tolist() for sequence in told.sequences]
        channels.append(rows[0] if told.interleaved else rows)
    values = told.facts | {"codes": channels if len(channels) > 1 else channels[0]}
    text = json.dumps(values, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
    if len(text) > MAX_JSON_BYTES:
        raise TokenFileError(
            f"{sum(sequence.size for sequence in told.sequences)} tokens are too many for JSON, of which "
            f"{MAX_JSON_BYTES >> 20} MiB can be read again; take .npz"
        )
    return text


def to_npz(recording: NamedRecording, form: Form) -> bytes:
    """The recording as a compressed ``.npz``.

    Arrays ``ids`` (int32, (channels, tokens)), or ``level_0``, ``level_1``, ... (uint16, (channels, tokens));
    the facts as arrays of no or one dimension. No pickles.

    Raises:
        TokenFileError: it would be larger than a file that can be read again.
    """
    if recording.codes.tokens > MAX_TOKENS:
        raise TokenFileError(
            f"{recording.codes.tokens} tokens are over the {MAX_TOKENS} of a file; cut the recording in parts"
        )
    arrays: dict[str, Any] = {}
    for name, value in facts(recording, form).items():
        arrays[name] = np.array(value)
    sequences = form.sequences(recording.codes)
    if form.interleaved:
        arrays["ids"] = sequences[0].astype(np.int32)  # MAX_ID fits
    else:
        arrays |= {f"level_{number}": level.astype(np.uint16) for number, level in enumerate(sequences)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
