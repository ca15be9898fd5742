"""Tokens as they come: ids out of anything, frames out of ids, audio out of frames, in threads and in
tasks."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
import tracemalloc
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snac.streaming import stream
from snaccli.tokens import Interleaving, TokenError, TokenFileError, TokenRangeError, flatten
from snaccli.tokens.stream import CUSTOM_TOKEN, Frames, IdReader, frames, guessed

ORPHEUS = Interleaving((4, 2, 1), 4096, offsets=True, start_id=10)
PLAIN = Interleaving((4, 2, 1), 4096)


def orpheus_log(codes: np.ndarray) -> str:
    """Text as Orpheus emits it for codes (frames, 7) in the order of its frames."""
    tokens = "".join(
        f"<custom_token_{10 + int(code) + 4096 * (position % 7)}>"
        for position, code in enumerate(codes.reshape(-1))
    )
    return f"<custom_token_4><custom_token_5><custom_token_1>{tokens}<custom_token_2><custom_token_6>"


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[low:high] for low, high in itertools.pairwise(ends)]


def read(reader: IdReader, parts: list[bytes]) -> list[int]:
    found = [value for part in parts for value in reader.push(part)]
    return found + list(reader.push(b"", ended=True))


@given(st.lists(st.integers(-5, 200_000), max_size=40), st.lists(st.integers(0, 999), max_size=9), st.data())
def test_ids_come_out_of_numbers_cut_anywhere(ids: list[int], cuts: list[int], data: st.DataObject) -> None:
    gaps = st.sampled_from([b" ", b"\n", b"\t\r\n", b"  "])
    written = b"".join(str(value).encode() + data.draw(gaps) for value in ids)
    assert read(IdReader(PLAIN, "integers"), pieces(written, cuts)) == ids
    assert read(IdReader(PLAIN, "integers"), pieces(written.rstrip(), cuts)) == ids


@given(st.integers(0, 5), st.lists(st.integers(0, 9999), max_size=9), st.integers(0, 99))
def test_ids_come_out_of_text_as_orpheus_writes_it(count: int, cuts: list[int], seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 4096, (count, 7))
    text = ("Here it is: é " + orpheus_log(codes) + " and <custom_tok no more").encode()
    assert guessed(text) == "text"
    ids = read(IdReader(ORPHEUS, "text"), pieces(text, cuts))
    levels = [codes[:, [0]].reshape(-1), codes[:, [1, 4]].reshape(-1), codes[:, [2, 3, 5, 6]].reshape(-1)]
    assert ids == flatten(levels, ORPHEUS).tolist()  # the order that its decoder gives the seven
    np.testing.assert_array_equal(np.reshape(list(Frames(ORPHEUS).push(ids)), (-1, 7)), codes)


def test_a_number_that_may_go_on_is_waited_for() -> None:
    reader = IdReader(PLAIN, "text", pattern=r"t(\d+)")
    assert list(reader.push("t12 t3")) == [12]
    assert list(reader.push("4")) == []
    assert list(reader.push("", ended=True)) == [34]
    complete = IdReader(ORPHEUS, "text", pattern=CUSTOM_TOKEN)
    assert list(complete.push("<custom_token_77>")) == [77]  # at once, no later text is needed


@pytest.mark.parametrize(
    ("line", "ids"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ({"ids": [4, 5]}, [4, 5]),
        ({"codes": [4, 5]}, [4, 5]),
        ({"codes": [[1], [2, 3], [4, 5, 6, 7]], "text": "hi"}, [11, 4108, 8206, 12303, 16397, 20496, 24593]),
    ],
)
def test_ids_come_out_of_json_lines(line: object, ids: list[int]) -> None:
    text = (json.dumps(line) + "\n\n" + json.dumps(line)).encode()
    assert guessed(text) == "json"
    assert read(IdReader(ORPHEUS, "json"), [text[:7], text[7:20], text[20:]]) == ids * 2


@pytest.mark.parametrize(
    ("syntax", "text", "message"),
    [
        ("integers", b"1 2 x3 4", "position 2: 'x3' is not a whole number"),
        ("integers", b"1 " + b"9" * 5000, "position 1: '9999"),
        ("json", b'[1]\n{"codes": 5}\n', "line 2: has no list of 'codes'"),
        ("json", b"[1]\nno\n", "line 2: is not JSON"),
        ("json", b'[1]\n{"codes": [[1], [2], [3]]}', r"line 2: levels of \[1, 1, 1\] tokens are not whole"),
        ("json", b'[1]\n{"codes": [[1], [2]], "channels": 2}\n', "line 2: several channels"),
        ("text", "<custom_token_\u0662>".encode(), "position 0: '\u0662' is not a whole number"),
    ],
)
def test_what_is_no_id_is_named_and_may_be_left_out(syntax: str, text: bytes, message: str) -> None:
    order = Interleaving((4, 2, 1), 4096)
    with pytest.raises(TokenFileError, match=message):
        read(IdReader(order, syntax), [text])
    told: list[TokenError] = []
    reader = IdReader(order, syntax, report=told.append)
    assert read(reader, [text, b"\n[7]\n" if syntax == "json" else b" 7 "])[:1] == [1][: syntax != "text"]
    assert len(told) == 1
    assert str(told[0]).startswith(message[:10].replace("\\", ""))


@pytest.mark.parametrize("pattern", ["(", "no group"])
def test_a_pattern_that_cannot_work_is_refused(pattern: str) -> None:
    with pytest.raises(TokenFileError, match="pattern"):
        IdReader(PLAIN, "text", pattern=pattern)


def frame(first: int) -> list[int]:
    return [10 + 4096 * place + first + place for place in range(7)]


def codes_of(first: int) -> list[int]:
    return [first + place for place in range(7)]


LOST = frame(100)[:3] + frame(100)[4:]


@pytest.mark.parametrize(
    ("middle", "position", "value", "skipped", "held"),
    [
        (LOST, 10, frame(100)[4], [], [[100, 101, 102, 3, 104, 105, 106]]),
        (frame(100)[:5], 12, frame(200)[0], [], [[100, 101, 102, 103, 104, 5, 6]]),
        (frame(100)[:3] + frame(100)[2:], 10, frame(100)[2], [], "doubled"),
        ([*frame(100)[:3], 999_999, *frame(100)[4:]], 10, 999_999, [], [[100, 101, 102, 3, 104, 105, 106]]),
        ([*frame(100)[:3], -4, *frame(100)[4:]], 10, -4, [], [[100, 101, 102, 3, 104, 105, 106]]),
        (frame(100)[1:], 7, frame(100)[1], [], [[0, 101, 102, 103, 104, 105, 106]]),
    ],
)
def test_lost_doubled_and_wrong_ids_are_named_and_mended(
    middle: list[int], position: int, value: int, skipped: list, held: object
) -> None:
    ids = frame(0) + middle + frame(200) + frame(300)
    stopped = Frames(ORPHEUS)
    whole = []
    with pytest.raises(TokenRangeError, match=f"^position {position} ") as caught:
        whole.extend(stopped.push(ids))
    assert (caught.value.position, caught.value.value) == (position, value)
    told: list[TokenError] = []
    skipping = Frames(ORPHEUS, on_error="skip-frame", report=told.append)
    assert list(skipping.push(ids)) == [codes_of(0), codes_of(200), codes_of(300)]
    assert skipping.errors == len(told) == 1
    holding = Frames(ORPHEUS, on_error="hold", report=lambda error: None)
    found = list(holding.push(ids))
    assert [len(part) for part in found] == [7] * len(found)
    assert found[-2:] == [codes_of(200), codes_of(300)]
    if held != "doubled":
        assert found == [codes_of(0), *held, codes_of(200), codes_of(300)]
    assert holding.pending == 0


def test_without_offsets_the_count_gives_the_place() -> None:
    ids = [*range(7), 1, 2, 5000, 4, 5, 6, 7, *range(20, 27), 8]
    told: list[TokenError] = []
    assert list(Frames(PLAIN, on_error="skip-frame", report=told.append).push(ids)) == [
        list(range(7)),
        list(range(20, 27)),
    ]
    assert [str(error)[:12] for error in told] == ["position 9 ("]
    taker = Frames(PLAIN, on_error="hold")
    assert list(taker.push(ids))[1] == [1, 2, 2, 4, 5, 6, 7]
    assert taker.pending == 1


def test_ids_to_ignore_count_but_have_no_place() -> None:
    order = Interleaving((4, 2, 1), 4096, offsets=True, start_id=128266)
    ids = [128257, *(value - 10 + 128266 for value in frame(0)), 128258]
    assert list(Frames(order, ignore=[128257, 128258]).push(ids)) == [codes_of(0)]
    with pytest.raises(TokenRangeError, match=r"position 0 .*: id 128257 is not in 128266\.\.132361"):
        list(Frames(order).push(ids))


class Summing:
    """A decoder whose audio is the codes of the finest level, a push late."""

    def __init__(self) -> None:
        self.held = np.zeros((1, 0), int)
        self.ended = False

    def push(self, codes: list[np.ndarray]) -> np.ndarray:
        out, self.held = self.held, codes[-1]
        return out

    def finish(self) -> np.ndarray:
        self.ended = True
        return self.held


def source(count: int) -> Iterator[list[int]]:
    for n in range(count):
        yield frame(n)


async def awaited_source(count: int) -> AsyncIterator[str]:
    for n in range(count):
        await asyncio.sleep(0)
        yield "".join(f"<custom_token_{value}>" for value in frame(n))


def expected(count: int) -> list[int]:
    return [n + place for n in range(count) for place in (2, 3, 5, 6)]


def test_an_iterator_of_audio() -> None:
    blocks = list(stream(frames(source(5), ORPHEUS), Summing()))
    assert np.concatenate(blocks, axis=-1)[0].tolist() == expected(5)
    assert len(blocks) == 5
    assert list(stream(frames([], ORPHEUS), Summing())) == []


@pytest.mark.parametrize("kind", [source, awaited_source])
def test_an_asynchronous_iterator_of_audio(kind) -> None:
    async def main() -> list[np.ndarray]:
        return [block async for block in stream(frames(kind(5), ORPHEUS), Summing())]

    assert np.concatenate(asyncio.run(main()), axis=-1)[0].tolist() == expected(5)


def test_codes_that_come_asynchronously_need_async_for() -> None:
    with pytest.raises(TypeError, match="async for"):
        next(stream(frames(awaited_source(1), ORPHEUS), Summing()))


def test_several_threads_take_each_block_once() -> None:
    audio = stream(frames(source(200), ORPHEUS), Summing())
    found: list[list[np.ndarray]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=lambda own=own: own.extend(audio)) for own in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    blocks = [tuple(block[0].tolist()) for own in found for block in own]
    assert sorted(blocks) == sorted(tuple(n + place for place in (2, 3, 5, 6)) for n in range(200))
    for own in found:
        assert [block[0, 0] for block in own] == sorted(block[0, 0] for block in own)


def test_a_stream_can_be_cancelled_from_another_thread() -> None:
    closed, waiting, go_on = [], threading.Event(), threading.Event()

    def endless() -> Iterator[list[int]]:
        try:
            yield frame(0)
            yield frame(1)
            waiting.set()
            go_on.wait(300)
            yield frame(2)
        finally:
            closed.append(True)

    audio = stream(frames(endless(), ORPHEUS), Summing())
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.extend(audio))
    thread.start()
    assert waiting.wait(300)
    audio.cancel()
    go_on.set()
    thread.join(300)
    assert not thread.is_alive()
    assert len(found) == 1
    assert closed == [True]
    with pytest.raises(StopIteration):
        next(audio)


def test_a_task_that_waits_can_be_cancelled() -> None:
    closed = []

    async def slow() -> AsyncIterator[list[int]]:
        try:
            yield frame(0)
            yield frame(1)
            await asyncio.sleep(60)
        finally:
            closed.append(True)

    async def main() -> int:
        heard: list[np.ndarray] = []
        audio = stream(frames(slow(), ORPHEUS), Summing())

        async def listen() -> None:
            async with audio:
                async for block in audio:
                    heard.append(block)

        task = asyncio.create_task(listen())
        while not heard:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [block async for block in audio] == []
        return len(heard)

    assert asyncio.run(main()) == 1
    assert closed == [True]


def test_an_error_comes_after_the_audio_before_it() -> None:
    def spoiled() -> Iterator[list[int]]:
        yield frame(0) + frame(1) + frame(2)[:2] + [5]

    audio = stream(frames(spoiled(), ORPHEUS), Summing())
    with pytest.raises(TokenRangeError, match="position 16 "):
        next(audio)
    with pytest.raises(StopIteration):
        next(audio)
    parts = frames(spoiled(), ORPHEUS)
    assert next(parts)[0].tolist() == [[0, 1]]


def test_memory_does_not_grow_with_the_stream() -> None:
    def hours(count: int) -> Iterator[str]:
        for n in range(count):
            yield "".join(f"<custom_token_{value}>" for value in frame(n % 1000))

    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in stream(frames(hours(count), ORPHEUS), Summing()):
            pass
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(8000) < 300_000  # the ids alone, kept as a list, would take 450,000 bytes


def test_audio_is_that_of_decoding_the_whole(tiny_model_folder) -> None:
    import torch

    from snac import SNAC
    from snac.streaming import StreamingDecoder

    model = SNAC.from_pretrained(str(tiny_model_folder)).fold()
    order = Interleaving(tuple(model.vq_strides), model.codebook_size, offsets=True)
    rng = np.random.default_rng(0)
    levels = [rng.integers(0, 256, (1, 40 * n)) for n in (1, 2, 4, 8)]
    ids = flatten(levels, order)[0].tolist()
    cut = [ids[low : low + 11] for low in range(0, len(ids), 11)]
    whole = [[torch.from_numpy(level) for level in part] for part in frames(cut, order)]
    audio = torch.cat(list(stream(whole, StreamingDecoder(model))), dim=-1)
    wanted = model.decode([torch.from_numpy(level) for level in levels])
    torch.testing.assert_close(audio, wanted, rtol=0, atol=1e-5)
