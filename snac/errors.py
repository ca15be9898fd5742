"""Errors of the model package. Every message is one line: what is wrong, then what to do about it."""

from __future__ import annotations


class SnacError(Exception):
    """Base of every error that is the user's to mend rather than a defect of the program."""


class ModelError(SnacError):
    """A model's configuration or weights cannot be used."""


class ModelNotFoundError(ModelError):
    """No model of that name, or it cannot be reached from here."""


class InputValueError(SnacError, ValueError):
    """Audio or codes that a model was given have a shape or values that it cannot take."""


class InputTypeError(SnacError, TypeError):
    """Audio or codes that a model was given are of a type that it cannot take."""
