"""Errors of the model package. Every message is one line: what is wrong, then what to do about it.

The messages speak to a caller of the library. What another program would word otherwise, such as a command
that fetches a model, is held as attributes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class SnacError(Exception):
    """Base of every error that is the user's to mend rather than a defect of the program.

    Errors can be pickled, whatever their constructors take: one that was raised in another process arrives.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[SnacError], arguments: tuple[Any, ...]) -> SnacError:
    return kind.__new__(kind, *arguments)


class ModelError(SnacError):
    """A model's configuration or weights cannot be used."""


class ModelNotFoundError(ModelError):
    """No model of that name, or it cannot be reached from here."""


class UnreachableModelError(ModelNotFoundError):
    """The Hub cannot be asked, so nothing is known of the model but that it is not on this machine.

    Attributes:
        name: as it was asked for.
        reason: why the Hub cannot be asked, a clause.
        cache_folder: of the repository, where its files would be.
    """

    def __init__(self, name: str, reason: str, cache_folder: Path) -> None:
        super().__init__(name, reason, cache_folder)
        self.name, self.reason, self.cache_folder = name, reason, cache_folder

    def __str__(self) -> str:
        folder = self.cache_folder
        return (
            f"model {self.name!r} is not on this machine ({self.reason}): load it on a connected machine and "
            f"copy the folder {folder.name} of its cache into {folder.parent} here, or give any folder with "
            "config.json and weights"
        )


class BrokenDownloadError(ModelNotFoundError):
    """The download of a model ended before it was complete.

    Attributes:
        name: as it was asked for.
        repository: on the Hub.
        reason: a clause.
    """

    def __init__(self, name: str, repository: str, reason: str) -> None:
        super().__init__(name, repository, reason)
        self.name, self.repository, self.reason = name, repository, reason

    def __str__(self) -> str:
        return f"{self.repository}: the download broke off ({self.reason}): load the model again"


class ChangedModelError(ModelError):
    """A file of a model in the cache is not what was published, downloaded, or first used.

    Attributes:
        name: of the model, as it was asked for.
        path: of the file.
        problem: in what it differs, the rest of a sentence whose subject is the file.
    """

    def __init__(self, name: str, path: Path, problem: str) -> None:
        super().__init__(name, path, problem)
        self.name, self.path, self.problem = name, path, problem

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; fetch it again: snac.hub.locate.pull({self.name!r})"


class InputValueError(SnacError, ValueError):
    """Audio or codes that a model was given have a shape or values that it cannot take."""


class InputTypeError(SnacError, TypeError):
    """Audio or codes that a model was given are of a type that it cannot take."""
