"""The token grid: what fits together, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from snaccli.codes import Codes


def grid(
    channels: int = 1, frames: int = 16, strides: tuple[int, ...] = (8, 4, 2, 1), size: int = 4096
) -> Codes:
    rng = np.random.default_rng(7)
    levels = tuple(rng.integers(0, size, (channels, frames // s)).astype(np.uint16) for s in strides)
    return Codes(levels, strides, size)


def test_geometry():
    codes = grid(channels=2)
    assert (codes.channels, codes.frames, codes.tokens) == (2, 16, 2 * (2 + 4 + 8 + 16))
    assert grid(frames=0).tokens == 0


def test_coarsest_levels():
    codes = grid()
    two = codes.coarsest(2)
    assert two.strides == (8, 4)
    assert [level.shape for level in two.levels] == [(1, 2), (1, 4)]
    for levels in (0, 5):
        with pytest.raises(ValueError, match="levels"):
            codes.coarsest(levels)


def zeros(*shape: int, dtype: type = np.uint16) -> np.ndarray:
    return np.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("levels", "strides", "size", "message"),
    [
        ((), (), 16, "0 levels"),
        ((zeros(1, 2),), (2, 1), 16, "1 levels"),
        ((zeros(1, 2),), (1,), 1, "codebook size"),
        ((zeros(1, 2),), (1,), 65537, "codebook size"),
        ((zeros(2),), (1,), 16, "uint16 array"),
        ((zeros(1, 2, dtype=np.int64),), (1,), 16, "uint16 array"),
        ((zeros(1, 2), zeros(1, 3)), (2, 1), 16, "shape"),
        ((zeros(1, 2), zeros(2, 4)), (2, 1), 16, "shape"),
        ((zeros(1, 3), zeros(1, 1)), (1, 2), 16, "does not divide"),
        ((zeros(1, 2),), (0,), 16, "shape"),
        ((zeros(1, 2) + np.uint16(16),), (1,), 16, "beyond the codebook"),
    ],
)
def test_refused(levels: tuple[np.ndarray, ...], strides: tuple[int, ...], size: int, message: str):
    with pytest.raises(ValueError, match=message):
        Codes(levels, strides, size)
