"""Decoding of codes as they come: each sample is returned as soon as nothing that follows can change it.

:class:`StreamingDecoder` takes codes and returns audio. :func:`stream` puts an iterable of codes and such a
decoder together: what comes out is an iterator and an asynchronous iterator. Nothing is queued, so the
memory held does not grow. Imports no torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

import numpy as np

from snac.engine import Engine
from snac.engine.streams import DecoderStream
from snac.errors import InputTypeError, InputValueError
from snac.noise import Noise

if TYPE_CHECKING:
    from torch import Tensor

    from snac.engine.torch_chain import FoldedModel
    from snac.nn.model import SNAC

__all__ = ["AudioStream", "CodeDecoder", "StreamingDecoder", "stream"]


Block = TypeVar("Block")
Block_co = TypeVar("Block_co", covariant=True)
Levels = Sequence[Any]
Audio = TypeVar("Audio")


class HasEngine(Protocol):
    """What has an engine, such as a ``snaccli.codec.Codec``."""

    @property
    def engine(self) -> Engine:
        """What computes."""
        ...


class StreamingDecoder(Generic[Audio]):
    """Codes to audio, piece by piece, with the samples of decoding all codes at once.

    For models that speak while they generate::

        decoder = StreamingDecoder(model)
        for codes in frames:                 # one tensor (1, n) a level
            play(decoder.push(codes))        # (1, 1, samples), the samples that are final by now
        play(decoder.finish())

    Noise included: it depends on the seed and on the position only. Equal within float rounding.

    Args:
        model: a ``SNAC``, or what its ``fold`` gives: then codes and audio are tensors; or an engine or what
            has one, such as a ``Codec``: then they are arrays, and audio is (B, samples).
        seed: of the decoder's noise, None for none, as for ``SNAC.decode``.

    Raises:
        InputTypeError: it is none of these.

    Attributes:
        latency: samples by which the audio returned so far ends before the codes pushed so far do, at most:
            the decoder's look-ahead and, with attention, a window that is not full.
    """

    @overload
    def __init__(
        self: StreamingDecoder[Tensor], model: SNAC | FoldedModel, *, seed: int | None = 0
    ) -> None: ...

    @overload
    def __init__(
        self: StreamingDecoder[np.ndarray], model: Engine | HasEngine, *, seed: int | None = 0
    ) -> None: ...

    def __init__(self, model: SNAC | FoldedModel | Engine | HasEngine, *, seed: int | None = 0) -> None:
        self._engine, self._tensors = _engine_of(model)
        self._noise = Noise.none() if seed is None else Noise.seeded(seed)
        self._stream: DecoderStream | None = None
        self._batch = 1
        self.latency = self._engine.decoder_stream(noise=self._noise).latency

    def push(self, codes: Sequence[Any]) -> Audio:
        """Takes further codes.

        Args:
            codes: one integer tensor or array (B, n) a level, coarse to fine; the same levels, one or more,
                and the same B at every call. Any number of tokens, none too; levels may run ahead of each
                other.

        Returns:
            (B, 1, samples), or (B, samples) of an engine: the samples that became final, in order; perhaps
            none.

        Raises:
            InputTypeError: the codes are no sequence of levels.
            InputValueError: the levels or the batch differ from those before, or a code is outside its
                codebook. The decoder is then as it was before.
        """
        arrays = _arrays(codes)
        stream = self._stream
        if stream is None:
            self._batch = arrays[0].shape[0] if arrays and arrays[0].ndim == 2 else 1
            stream = self._engine.decoder_stream(noise=self._noise, channels=self._batch)
        elif arrays and arrays[0].ndim == 2 and arrays[0].shape[0] != self._batch:
            raise InputValueError(
                f"a batch of {arrays[0].shape[0]} after one of {self._batch}: finish the stream first"
            )
        with _refused_input():
            audio = stream.push(arrays)
        self._stream = stream
        return self._given(audio)

    def finish(self) -> Audio:
        """Ends the stream and returns the rest, as :meth:`push`; after that the decoder begins anew.

        Raises:
            InputValueError: the levels pushed are not equally long, or, with attention, do not fill its last
                window: ``SNAC.decode`` would not take them either.
        """
        if self._stream is None:
            return self._given(np.zeros((1, 0), np.float32))
        with _refused_input():
            audio = self._stream.push(None, ended=True)
        self._stream = None
        return self._given(audio)

    def _given(self, audio: np.ndarray) -> Audio:
        given: Any = audio
        if self._tensors:
            import torch

            given = torch.from_numpy(audio)[:, None]
        return given  # type: ignore[no-any-return]


def _engine_of(model: Any) -> tuple[Engine, bool]:
    """The engine to decode with, and whether codes and audio are tensors."""
    if isinstance(model, Engine):
        return model, False
    folded = model.fold() if hasattr(model, "fold") else model
    engine = getattr(folded, "engine", None)
    if not isinstance(engine, Engine):
        hint = f": give SNAC.from_pretrained({model!r})" if isinstance(model, str) else ""
        raise InputTypeError(
            f"a decoder is made of a SNAC, of what its fold() gives, of a Codec or of an engine, "
            f"not of a {type(model).__name__}{hint}"
        )
    return engine, getattr(folded, "takes_tensors", False)


def _arrays(codes: Any) -> list[np.ndarray]:
    """Codes as the engine takes them, which checks what is in them."""
    if not isinstance(codes, Iterable) or isinstance(codes, (str, bytes, dict)):
        raise InputTypeError(
            f"codes must be a sequence of (batch, tokens) levels, not a {type(codes).__name__}"
        )
    with _refused_input():
        return [np.asarray(code.detach().cpu() if hasattr(code, "detach") else code) for code in codes]


@contextlib.contextmanager
def _refused_input() -> Iterator[None]:
    """What the engine refuses is input of the caller's."""
    try:
        yield
    except ValueError as error:
        raise InputValueError(str(error)) from error


class CodeDecoder(Protocol[Block_co]):
    """What turns codes into audio as they come: a ``snac.streaming.StreamingDecoder``, say."""

    def push(self, codes: Levels) -> Block_co:
        """Takes further codes, an array a level, and returns the audio that became final, perhaps none."""
        ...

    def finish(self) -> Block_co:
        """Ends the stream and returns the rest of the audio."""
        ...


def stream(
    codes: Iterable[Levels] | AsyncIterable[Levels], decoder: CodeDecoder[Block]
) -> AudioStream[Block]:
    """Returns the audio of codes as they come, block by block, each as soon as no later code can change it.

    ::

        for block in stream(frames, StreamingDecoder(model)):
            play(block)
        async for block in stream(frames, StreamingDecoder(model)):
            await play(block)

    Joined, the blocks are the audio of all codes decoded at once.

    Args:
        codes: gives what ``decoder.push`` takes: an array a level, coarse to fine. With ``for`` an iterable;
            with ``async for`` an asynchronous iterable, or an iterable, which is then waited for in a thread.
        decoder: fresh, and used by nobody else meanwhile.
    """
    return AudioStream(codes, decoder)


_END: Any = object()


class AudioStream(Generic[Block]):
    """An iterator of blocks of audio, for ``for`` and ``async for``; see :func:`stream`.

    Several threads may take blocks from it: each block goes to one of them, in order. An error of the codes
    or of the decoder comes out where the next block is taken and ends the stream.
    """

    def __init__(self, codes: Iterable[Levels] | AsyncIterable[Levels], decoder: CodeDecoder[Block]) -> None:
        self._codes = codes
        self._decoder = decoder
        self._lock = threading.Lock()  # held while codes are taken and decoded: blocks stay in order
        self._turn = asyncio.Lock()  # the same among tasks
        self._ended = threading.Event()
        self._iterator: Iterator[Levels] | None = None
        self._async_iterator: AsyncIterator[Levels] | None = None

    def cancel(self) -> None:
        """Ends the stream early, from any thread: no further block comes and no further codes are taken.

        Who waits for codes at this moment gets the end of the stream once the codes have come, and no block;
        in a task, cancelling the task ends the wait at once.
        """
        self._ended.set()

    def __iter__(self) -> AudioStream[Block]:
        return self

    def __next__(self) -> Block:
        with self._lock:
            try:
                while not self._ended.is_set():
                    block = self._decoded(self._taken())
                    if block is not None:
                        return block
            except BaseException:
                self._ended.set()
                raise
            finally:
                if self._ended.is_set():
                    self._close()
        raise StopIteration

    def __aiter__(self) -> AudioStream[Block]:
        return self

    async def __anext__(self) -> Block:
        async with self._turn:
            return await self._next_block()

    async def _next_block(self) -> Block:
        try:
            while not self._ended.is_set():
                block = await asyncio.to_thread(self._decoded_alone, await self._awaited())
                if block is not None:
                    return block
        except (
            BaseException
        ):  # a task that is cancelled too: its codes are lost, so nothing right could follow
            self._ended.set()
            raise
        finally:
            if self._ended.is_set():
                await self._aclose()
        raise StopAsyncIteration

    def __enter__(self) -> AudioStream[Block]:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()
        if self._lock.acquire(blocking=False):  # who holds it closes the codes
            try:
                self._close()
            finally:
                self._lock.release()

    async def __aenter__(self) -> AudioStream[Block]:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()
        await self._aclose()

    def _taken(self) -> Levels:
        if self._iterator is None:
            if not isinstance(self._codes, Iterable):
                raise TypeError("these codes come asynchronously: take the blocks with 'async for'")
            self._iterator = iter(self._codes)
        return next(self._iterator, _END)

    async def _awaited(self) -> Levels:
        if not isinstance(self._codes, AsyncIterable):
            return await asyncio.to_thread(self._taken)
        if self._async_iterator is None:
            self._async_iterator = aiter(self._codes)
        return await anext(self._async_iterator, _END)

    def _decoded_alone(self, codes: Levels) -> Block | None:
        with self._lock:
            return None if self._ended.is_set() else self._decoded(codes)

    def _decoded(self, codes: Levels) -> Block | None:
        """The audio that these codes make final; None where there is none."""
        if self._ended.is_set():
            return None
        if codes is _END:
            self._ended.set()
            block = self._decoder.finish()
        else:
            block = self._decoder.push(codes)
        return block if block.shape[-1] else None  # type: ignore[attr-defined]

    def _close(self) -> None:
        iterator, self._iterator = self._iterator, None
        self._codes = ()
        if iterator is not None and hasattr(iterator, "close"):
            iterator.close()

    async def _aclose(self) -> None:
        iterator, self._async_iterator = self._async_iterator, None
        if isinstance(self._codes, AsyncIterable):
            self._codes = ()
            if iterator is not None and hasattr(iterator, "aclose"):
                with contextlib.suppress(
                    RuntimeError
                ):  # it is being waited for by the task that is cancelled
                    await iterator.aclose()
        else:
            with contextlib.suppress(ValueError):  # a thread still waits for its next codes
                self._close()
