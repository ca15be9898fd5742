"""Memory kept by the C library: what is asked of it, and when."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli import heap
from snaccli.codec import Codec, encode_file, model


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The calls of the C library, none of which is made."""
    calls: list[tuple[str, ...]] = []
    monkeypatch.setattr(heap, "_call", lambda *call: calls.append(tuple(map(str, call))))
    return calls


def test_the_c_library_takes_what_it_is_asked() -> None:
    heap.trim()
    heap._call("no_such_function", 1)


def test_short_recordings_count_together(
    tmp_path: Path, tiny_model_folder: Path, asked: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "_TIDY_S", 1.0)
    codec = Codec.load(str(tiny_model_folder))
    soundfile.write(tmp_path / "in.wav", np.zeros(8000, np.int16), 16000)
    trims = []
    for _ in range(5):  # half a second each
        encode_file(tmp_path / "in.wav", tmp_path / "x.snac", model=codec, overwrite=True)
        trims.append(asked.count(("malloc_trim", "0")))
    assert trims == [0, 1, 1, 2, 2]
