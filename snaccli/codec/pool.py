"""The models of a run over many files, each loaded once, when the first file asks for it."""

from __future__ import annotations

import threading
from pathlib import Path

from snac.hub.registry import DEFAULT_MODEL, MODELS
from snaccli.codec.codec import Codec, WantedPrior
from snaccli.errors import ModelError, UnknownModelError

__all__ = ["ModelPool"]


class ModelPool:
    """Loads models on demand and keeps them, and the errors of those that cannot be had.

    May be used from several threads at once.

    Args:
        choice: the model that the user named for all files, by name or folder or loaded; None to take the one
            that a file names, and the default model for audio.
        device: see `Codec.load`.
        threads: likewise.
        prior: likewise.
    """

    def __init__(
        self,
        choice: str | Path | Codec | None = None,
        *,
        device: str = "auto",
        threads: int | None = None,
        prior: WantedPrior = True,
    ) -> None:
        self.choice, self._prior = choice, prior
        self._device, self._threads = device, threads
        self._lock = threading.Lock()
        self._loaded: dict[str, Codec | ModelError] = {}

    @property
    def loaded(self) -> list[Codec]:
        """The models that have been loaded so far, in that order."""
        with self._lock:
            return [codec for codec in self._loaded.values() if isinstance(codec, Codec)]

    def get(self, source: str | Path | Codec | None = None) -> Codec:
        """Returns a model that the user named, or the default model.

        Args:
            source: its name, folder or Hub repository, or a loaded one; None for the choice for all files,
                and where there is none, for the default model.

        Raises:
            ModelError: it cannot be had.
            UsageError: there is no such device here.
        """
        if source is None:
            source = DEFAULT_MODEL if self.choice is None else self.choice
        if isinstance(source, Codec):
            return source
        name = str(source)
        with self._lock:
            if name not in self._loaded:
                try:
                    self._loaded[name] = Codec.load(
                        name, device=self._device, threads=self._threads, prior=self._prior
                    )
                except ModelError as error:
                    self._loaded[name] = error
            found = self._loaded[name]
        if isinstance(found, ModelError):
            raise found
        return found

    def for_file(
        self, name: str | None, fingerprint: str | None = None, given: str | Path | Codec | None = None
    ) -> Codec:
        """Returns the model for a file that was made with a model of this name.

        The caller's own choice comes first. What a stranger's file says must not choose what is downloaded or
        which folder is read: from it only the known models are taken, and those loaded already.

        Args:
            name: the name that stands in the file; None where none does.
            fingerprint: of the weights, 16 hex digits, likewise.
            given: the caller's choice for this file; by default that for all files.

        Raises:
            UnknownModelError: there is no choice, and the name is not that of a known model.
            ModelError, UsageError: as `get`.
        """
        given = self.choice if given is None else given
        if given is not None:
            return self.get(given)
        if name is not None and name in MODELS:
            return self.get(name)
        for codec in self.loaded:
            if fingerprint is not None and codec.fingerprint == fingerprint:
                return codec
        raise UnknownModelError(name)
