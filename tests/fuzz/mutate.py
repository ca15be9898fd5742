"""Changes to bytes and to JSON values, each drawn from a generator, so that a case can be made again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

NUMBERS = (0, 1, 2, 3, 7, 8, 15, 16, 17, 63, 64, 85, 127, 128, 255, 256, 4096, 32767, 32768, 65535, 65536)
LARGE = ((1 << 24) - 1, 1 << 24, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 48) - 1, 1 << 48)
HUGE = (1 << 49, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 70)
MOST = 1 << 20  # bytes of a changed file: repeating must not run away


def number(rng: Random) -> int:
    """A number at which a width or a bound ends, or any small one; now and then negative."""
    value = rng.choice((rng.choice(NUMBERS), rng.choice(LARGE), rng.choice(HUGE), rng.randrange(300)))
    return -value if rng.random() < 0.1 else value


def nudged(rng: Random, value: int) -> int:
    """A number near another, a multiple or a part of it, or any."""
    return rng.choice((value + 1, value - 1, 2 * value, value // 2, value + rng.randrange(100), number(rng)))


def _flip(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _set(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFE, 0xFF, rng.randrange(256)))


def _word(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    width = rng.choice((2, 4, 8))
    at = rng.randrange(max(1, len(data) - width))
    word = number(rng) & ((1 << 8 * width) - 1)
    data[at : at + width] = word.to_bytes(width, rng.choice(("little", "big")))


def _insert(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    at = rng.randrange(len(data) + 1)
    data[at:at] = rng.choice((rng.randbytes(rng.randrange(1, 40)), bytes(rng.randrange(1, 300))))


def _delete(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    at = rng.randrange(len(data))
    del data[at : at + rng.choice((1, 1, 4, rng.randrange(1, len(data) + 1)))]


def _truncate(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[rng.choice((rng.randrange(len(data)), max(0, len(data) - rng.randrange(1, 20)))) :]


def _extend(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    data += rng.choice((b"\0", rng.randbytes(rng.randrange(1, 64)), bytes(data[: rng.randrange(1, 400)])))


def _repeat(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    at = rng.randrange(len(data))
    piece = bytes(data[at : at + rng.randrange(1, 200)])
    data[at:at] = piece * rng.choice((1, 1, 2, 50))


def _swap(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    first, middle, last = sorted(rng.randrange(len(data) + 1) for _ in range(3))
    data[first:last] = data[middle:last] + data[first:middle]


def _splice(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others) if others else bytes(data)
    first = rng.randrange(len(other) + 1)
    piece = other[first : first + rng.choice((4, 16, 64, len(other)))]
    at = rng.randrange(len(data) + 1)
    data[at : at + rng.choice((0, len(piece), len(data)))] = piece


def _blank(rng: Random, data: bytearray, others: Sequence[bytes]) -> None:
    at = rng.randrange(len(data))
    count = min(rng.randrange(1, 64), len(data) - at)
    data[at : at + count] = bytes([rng.choice((0, 0xFF))]) * count


_WAYS: tuple[Callable[[Random, bytearray, Sequence[bytes]], None], ...] = (
    *(_flip, _flip, _flip, _set, _set, _word, _word, _insert, _delete, _truncate),
    *(_extend, _repeat, _swap, _splice, _blank),
)


def mutated(rng: Random, data: bytes, others: Sequence[bytes] = ()) -> bytes:
    """The bytes with one to a few changes.

    Args:
        rng: decides all.
        data: what is changed.
        others: files of the same kind, to take pieces from.
    """
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        if not changed:
            changed += rng.randbytes(rng.randrange(1, 8))
        rng.choice(_WAYS)(rng, changed, others)
        del changed[MOST:]
    return bytes(changed)


_TEXTS = ("", "a", "\0", "\ud800", "../x", "é" * 70, "x" * 5000, "NaN", "-1", "0", "\n", "C:\\x", "a//b")


def value(rng: Random) -> Any:
    """Any JSON value, most of them not what is expected."""
    simple = (None, True, False, 0.5, float("nan"), float("inf"), 1e308, number(rng), rng.choice(_TEXTS))
    return rng.choice((*simple, number(rng), [], {}, [number(rng)], [[number(rng)]], {"a": number(rng)}))


def mutated_value(rng: Random, tree: Any) -> Any:
    """A JSON value with one to three changes somewhere within."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        tree = _changed(rng, tree)
    return tree


def _changed(rng: Random, tree: Any) -> Any:
    if isinstance(tree, dict) and tree and rng.random() < 0.9:
        return _changed_dict(rng, dict(tree))
    if isinstance(tree, list) and tree and rng.random() < 0.9:
        return _changed_list(rng, list(tree))
    if isinstance(tree, int) and not isinstance(tree, bool) and rng.random() < 0.7:
        return nudged(rng, tree)
    if isinstance(tree, str) and tree and rng.random() < 0.5:
        at = rng.randrange(len(tree))
        return tree[:at] + rng.choice(("", "0", "x", "\udc80", "/")) + tree[at + 1 :]
    return value(rng)


def _changed_dict(rng: Random, tree: dict[str, Any]) -> dict[str, Any]:
    key = rng.choice(list(tree))
    way = rng.randrange(8)
    if way == 0:
        del tree[key]
    elif way == 1:
        tree[rng.choice((*_TEXTS, key + "x"))] = tree.pop(key)
    elif way == 2:
        tree[key] = tree[rng.choice(list(tree))]
    elif way == 3:
        tree[rng.choice(_TEXTS)] = value(rng)
    else:
        tree[key] = _changed(rng, tree[key])
    return tree


def _changed_list(rng: Random, tree: list[Any]) -> list[Any]:
    at = rng.randrange(len(tree))
    way = rng.randrange(10)
    if way == 0:
        del tree[at]
    elif way == 1:
        tree.insert(at, value(rng))
    elif way == 2:
        tree.insert(at, tree[rng.randrange(len(tree))])
    elif way == 3:
        tree = tree[:at] * rng.choice((1, 2, 20))
    elif way == 4:
        other = rng.randrange(len(tree))
        tree[at], tree[other] = tree[other], tree[at]
    else:
        tree[at] = _changed(rng, tree[at])
    return tree
