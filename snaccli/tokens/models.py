"""The models of a run over many files, each loaded once, when the first file asks for it."""

from __future__ import annotations

import threading

from snac.hub.registry import DEFAULT_MODEL, MODELS
from snaccli.codec import Codec
from snaccli.errors import ModelError, UnknownModelError

__all__ = ["Models"]


class Models:
    """Loads models on demand; may be called from several threads.

    Args:
        choice: the model to take for every file, by name or folder or loaded; None for the one that the file
            names, and the default model for audio.
        device: see ``Codec.load``.
        threads: likewise.
    """

    def __init__(
        self, choice: str | Codec | None = None, *, device: str = "auto", threads: int | None = None
    ) -> None:
        self._choice, self._device, self._threads = choice, device, threads
        self._lock = threading.Lock()
        self._loaded: dict[str, Codec | ModelError] = {}

    def for_audio(self) -> Codec:
        """The model for recordings.

        Raises:
            ModelError: it cannot be had.
        """
        return self._choice if isinstance(self._choice, Codec) else self._load(self._choice or DEFAULT_MODEL)

    def named(self, name: str | None) -> Codec:
        """The model for a file that names one, or none.

        Raises:
            ModelError: it cannot be had, or the file's name for it is not that of a known model: a stranger's
                file must not choose what is downloaded, or which folder is read.
        """
        if isinstance(self._choice, Codec):
            return self._choice
        if self._choice is None and name not in MODELS:
            raise UnknownModelError(name)
        return self._load(self._choice or str(name))

    def _load(self, name: str) -> Codec:
        with self._lock:
            if name not in self._loaded:
                try:
                    self._loaded[name] = Codec.load(name, device=self._device, threads=self._threads)
                except ModelError as error:
                    self._loaded[name] = error
            found = self._loaded[name]
        if isinstance(found, ModelError):
            raise found
        return found
