"""What a user's type checker sees of the model and of streams."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = """
from __future__ import annotations
import numpy as np
from torch import Tensor
from typing_extensions import assert_type
from snac import SNAC
from snac.streaming import StreamingDecoder, stream
from snaccli.codec import Codec

def program(model: SNAC, codec: Codec, audio: Tensor) -> None:
    assert_type(model(audio), tuple[Tensor, list[Tensor]])
    assert_type(StreamingDecoder(model).push([]), Tensor)
    assert_type(StreamingDecoder(model.fold()).finish(), Tensor)
    assert_type(StreamingDecoder(codec).push([]), np.ndarray)
    assert_type(StreamingDecoder(codec.engine).push([]), np.ndarray)
    for block in stream([[audio]], StreamingDecoder(model)):
        assert_type(block, Tensor)
"""


@pytest.mark.slow
def test_models_and_streams_have_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", str(program)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "program.py" not in done.stdout, done.stdout
    assert not done.stderr, done.stderr
