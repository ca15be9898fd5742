"""Ids of a language model as they come, turned into whole frames of codes: what ``snac stream`` reads.

The way is bytes or text, ids, frames, and then ``snac.streaming.stream`` and a decoder. Each part holds
what is not whole yet (half a number, a part of a frame) and no more. Knows no torch.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Literal, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from snaccli.tokens.files import MAX_JSON_BYTES, parse
from snaccli.tokens.interleave import (
    Interleaving,
    RaggedLevelsError,
    TokenError,
    TokenFileError,
    TokenRangeError,
    flatten,
    unflatten,
)

__all__ = ["CUSTOM_TOKEN", "CUSTOM_TOKEN_START", "Frames", "IdReader", "OnError", "frames", "guessed"]

CUSTOM_TOKEN = r"<custom_token_(\d{1,9})>"
"""How Orpheus and its kin write an id into their text; of codes it is ``CUSTOM_TOKEN_START`` or more."""
CUSTOM_TOKEN_START = 10
"""The first ten such tokens begin and end turns and speech."""

OnError: TypeAlias = Literal["stop", "skip-frame", "hold"]
Syntax: TypeAlias = Literal["integers", "json", "text"]
Levels: TypeAlias = "list[npt.NDArray[np.int64]]"
Report: TypeAlias = Callable[[TokenError], None]

_MAX_WORD = 64  # characters of an integer, with what surrounds it
_MAX_TAIL = 4096  # characters of text in which a token may stand that is not whole yet
_SHOWN = 40


class IdReader:
    """Bytes as they come, to ids.

    Args:
        order: how ids and codes belong together; its ids are what the reader gives, also for codes in levels.
        syntax: ``integers`` separated by white space; ``json``, a line each: a list of ids, or an object with
            ``ids`` or ``codes`` (a list, or a list for each level); ``text`` in which ids stand as
            ``pattern`` says.
        pattern: a regular expression whose first group is the number.
        report: gets what is no id and is left out; None to raise it.

    Attributes:
        position: ids given so far.

    Raises:
        TokenFileError: ``pattern`` is no regular expression with a group.
    """

    def __init__(
        self,
        order: Interleaving,
        syntax: Syntax,
        *,
        pattern: str = CUSTOM_TOKEN,
        report: Report | None = None,
    ) -> None:
        try:
            self._pattern = re.compile(pattern)
        except re.error as problem:
            raise TokenFileError(f"the pattern {pattern!r} is no regular expression: {problem}") from problem
        if not self._pattern.groups:
            raise TokenFileError(
                rf"the pattern {pattern!r} has no group for the number, such as (\d+): add one"
            )
        self._order, self._syntax, self._report = order, syntax, report
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._line = 0
        self.position = 0

    def push(self, data: bytes | str, *, ended: bool = False) -> Iterator[int]:
        """Takes further input and yields the ids that are whole by now.

        Args:
            data: bytes (UTF-8) or text, cut anywhere.
            ended: whether nothing follows.

        Raises:
            TokenError: the input holds what is no id, and there is nobody to report it to; after the ids
                before it.
        """
        self._rest += data if isinstance(data, str) else self._decoder.decode(data, ended)
        find = {"integers": self._integers, "json": self._lines, "text": self._numbers}[self._syntax]
        for value in find(ended):
            self.position += 1
            yield value

    def _integers(self, ended: bool) -> Iterator[int]:
        words = self._rest.split()
        whole = ended or not self._rest or self._rest[-1].isspace()
        self._rest = "" if whole else words.pop()
        if len(self._rest) > _MAX_WORD:
            words.append(self._rest)
            self._rest = ""
        for word in words:
            if len(word) <= _MAX_WORD and re.fullmatch(r"[+-]?[0-9]+", word):
                yield int(word)
            else:
                self._refuse(f"position {self.position}: {_shown(word)} is not a whole number")

    def _lines(self, ended: bool) -> Iterator[int]:
        *lines, self._rest = self._rest.split("\n")
        if ended:
            lines.append(self._rest)
            self._rest = ""
        if len(self._rest) > MAX_JSON_BYTES:
            raise TokenFileError(f"line {self._line + 1} has more than {MAX_JSON_BYTES >> 20} MiB of JSON")
        for line in lines:
            self._line += 1
            if line.strip():
                try:
                    ids = self._of_line(line)
                except TokenError as error:
                    self._refuse(f"line {self._line}: {error}", error)
                else:
                    yield from ids

    def _of_line(self, line: str) -> list[int]:
        draft = parse(line.encode("utf-8", "surrogatepass"), ids=True)
        if draft.sequences[0].shape[0] != 1:
            raise TokenFileError("several channels cannot be streamed; give each a stream of its own")
        if draft.interleaved:
            return draft.sequences[0][0].tolist()  # type: ignore[no-any-return]
        levels = [level[0] for level in draft.sequences]
        total = sum(map(len, levels))
        if total % self._order.frame_length:
            raise RaggedLevelsError(
                f"levels of {[len(level) for level in levels]} tokens are not whole frames of "
                f"{list(self._order.per_level)}",
                0,
                len(levels[0]),
                -(-total // self._order.frame_length),
            )
        return flatten(levels, self._order).tolist()  # type: ignore[no-any-return]

    def _numbers(self, ended: bool) -> Iterator[int]:
        text, until, words = self._rest, 0, []
        for match in self._pattern.finditer(text):
            if match.end() == len(text) and match.end(1) == match.end() and not ended:
                break  # digits may follow
            until = match.end()
            words.append(match[1] or "")
        self._rest = "" if ended else text[max(until, len(text) - _MAX_TAIL) :]
        for word in words:
            if not (word.isascii() and word.isdigit() and len(word) <= _MAX_WORD):
                self._refuse(f"position {self.position}: {_shown(word)} is not a whole number")
            elif int(word) >= self._order.start_id:  # those below begin and end what is said
                yield int(word)

    def _refuse(self, message: str, error: TokenError | None = None) -> None:
        problem = TokenFileError(message)
        if self._report is None:
            raise problem from error
        self._report(problem)


def guessed(start: bytes) -> Syntax:
    """Returns the syntax that the first bytes of an input suggest; they are more than white space."""
    first = start.lstrip()[:1]
    return "json" if first in (b"{", b"[") else "integers" if first in b"0123456789+-" else "text"


def _shown(word: str) -> str:
    return repr(word if len(word) <= _SHOWN else f"{word[:_SHOWN]}...")


class Frames:
    """Ids as they come, to whole frames of codes; what is wrong is named with its position.

    Args:
        order: how ids and codes belong together. With ``offsets`` each id says its place in the frame, so
            that a lost or a doubled id is found, and what follows it is put right again.
        on_error: ``stop`` raises. ``skip-frame`` leaves the frame out; the next one begins with the next id
            of place 0, or, without offsets, after as many ids as belong to the frame. ``hold`` puts the
            code that stood at the same place of the frame before (0 in the first one) where a code is
            missing or wrong.
        report: gets each error that does not stop.
        ignore: ids that are passed over, such as those that begin and end speech.

    Attributes:
        position: ids taken so far.
        errors: what was wrong so far.
    """

    def __init__(
        self,
        order: Interleaving,
        *,
        on_error: OnError = "stop",
        report: Report | None = None,
        ignore: Iterable[int] = (),
    ) -> None:
        self._order, self._on_error, self._report = order, on_error, report
        self._ignore = frozenset(ignore)
        self._plain = Interleaving(order.strides, order.codebook_size)
        self._first = [int(first) for first in order.first_ids()]
        self._frame: list[int] = []  # codes of the frame that is not whole yet
        self._held = [0] * order.frame_length
        self._spoiled = False  # the frame is to be left out
        self._seeking = False  # with offsets: no id of place 0 has come since a frame was left out
        self.position = 0
        self.errors = 0

    @property
    def length(self) -> int:
        """Ids of a frame."""
        return self._order.frame_length

    @property
    def pending(self) -> int:
        """Ids of a frame that is not whole yet."""
        return len(self._frame)

    def push(self, ids: Iterable[int]) -> Iterator[list[int]]:
        """Takes further ids and yields the frames that are whole by now: codes in the order's places.

        Raises:
            TokenRangeError: an id is out of range or out of order, and ``on_error`` is ``stop``; after the
                frames before it.
        """
        for value in ids:
            if value not in self._ignore:
                yield from self._take(value)
            self.position += 1

    def levels(self, whole: list[list[int]]) -> Levels:
        """Returns frames as a decoder takes them: int64 (1, tokens) a level, coarse to fine."""
        return unflatten(np.array(whole, np.int64).reshape(1, -1), self._plain)

    def _take(self, value: int) -> Iterator[list[int]]:
        size, place = self._order.codebook_size, len(self._frame)
        if not 0 <= value - self._first[place] < size:
            yield from self._misfit(value, place)
        else:
            self._seeking = False
            yield from self._add(value - self._first[place])

    def _misfit(self, value: int, place: int) -> Iterator[list[int]]:
        own = (value - self._order.start_id) // self._order.codebook_size if self._order.offsets else -1
        known = own if 0 <= own < self._order.frame_length else None
        if self._seeking and known:
            return  # told already: the rest of a frame that is left out
        self._tell(value, place, known)
        if self._on_error == "hold":
            yield from self._hold(value, place, known)
        elif self._order.offsets:
            self._frame, self._seeking = [], True
            if known == 0:
                yield from self._take(value)
        else:
            self._spoiled = True
            yield from self._add(0)

    def _hold(self, value: int, place: int, own: int | None) -> Iterator[list[int]]:
        if own is None:  # a wrong id in the place of a right one
            yield from self._add(self._held[place])
            return
        while len(self._frame) != own:
            yield from self._add(self._held[len(self._frame)])
        yield from self._add(value - self._first[own])

    def _add(self, code: int) -> Iterator[list[int]]:
        self._frame.append(code)
        if len(self._frame) == self._order.frame_length:
            frame, spoiled = self._frame, self._spoiled
            self._frame, self._spoiled = [], False
            if not spoiled:
                self._held = frame
                yield frame

    def _tell(self, value: int, place: int, own: int | None) -> None:
        low = self._first[place]
        high = low + self._order.codebook_size - 1
        where = (
            f"position {self.position} (token {place} of a frame, level {self._order.positions[place][0]})"
        )
        if own is None:
            told = f"{where}: id {value} is not in {low}..{high}"
        else:
            told = f"{where}: id {value} is out of order, of token {own}; expected {low}..{high}"
        error = TokenRangeError(told, self.position, value, self._order.positions[place][0])
        self.errors += 1
        if self._on_error == "stop":
            raise error
        if self._report is not None:
            self._report(error)


Source: TypeAlias = "int | str | bytes | Iterable[int]"


@overload
def frames(
    source: AsyncIterable[Source],
    order: Interleaving,
    *,
    on_error: OnError = ...,
    report: Report | None = ...,
    ignore: Iterable[int] = ...,
    pattern: str = ...,
) -> AsyncIterator[Levels]: ...
@overload
def frames(
    source: Iterable[Source],
    order: Interleaving,
    *,
    on_error: OnError = ...,
    report: Report | None = ...,
    ignore: Iterable[int] = ...,
    pattern: str = ...,
) -> Iterator[Levels]: ...
def frames(
    source: Iterable[Source] | AsyncIterable[Source],
    order: Interleaving,
    *,
    on_error: OnError = "stop",
    report: Report | None = None,
    ignore: Iterable[int] = (),
    pattern: str = CUSTOM_TOKEN,
) -> Iterator[Levels] | AsyncIterator[Levels]:
    """Returns whole frames of codes as they come, for ``snac.streaming.stream``.

    Args:
        source: ids, or lists or arrays of ids, or pieces of text in which ids stand as ``pattern`` says, cut
            anywhere; an iterable, or an asynchronous one, which makes the result one too. A last frame that
            is not whole is left out.
        order: how ids and codes belong together.
        on_error, report, ignore: see :class:`Frames`.
        pattern: see :class:`IdReader`.

    Raises:
        TokenError: while iterating, as the two classes say.
    """
    reader = IdReader(order, "text", pattern=pattern, report=report)
    taker = Frames(order, on_error=on_error, report=report, ignore=ignore)

    def taken(item: Source) -> Iterator[Levels]:
        ids = reader.push(item) if isinstance(item, (str, bytes)) else item
        whole, failure = [], None
        try:
            for frame in taker.push(ids if isinstance(ids, Iterable) else (ids,)):
                whole.append(frame)
        except TokenError as error:
            failure = error
        if whole:
            yield taker.levels(whole)
        if failure is not None:
            raise failure

    def each(items: Iterable[Source]) -> Iterator[Levels]:
        for item in items:
            yield from taken(item)

    async def each_awaited(items: AsyncIterable[Source]) -> AsyncIterator[Levels]:
        async for item in items:
            for levels in taken(item):
                yield levels

    return each_awaited(source) if isinstance(source, AsyncIterable) else each(source)
