"""Errors of the model package. Every message is one line: what is wrong, then what to do about it."""

from __future__ import annotations


class SnacError(Exception):
    """Base of every error that is the user's to mend rather than a defect of the program."""


class ModelError(SnacError):
    """A model's configuration or weights cannot be used."""


class ModelNotFoundError(ModelError):
    """No model of that name, or it cannot be reached from here."""
