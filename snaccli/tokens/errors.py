"""What can be wrong with tokens that come from elsewhere. Knows no torch."""

from __future__ import annotations

from snaccli.errors import FileError

__all__ = ["RaggedLevelsError", "TokenError", "TokenFileError", "TokenRangeError"]


class TokenError(FileError):
    """Tokens that are not a recording's. Base of the named errors."""

    joint = ": "


class TokenFileError(TokenError):
    """A file of tokens that is none, or says something impossible of them."""


class RaggedLevelsError(TokenError):
    """The levels have not the lengths that belong together.

    Attributes:
        level: the first level that does not fit, counted from 0, the coarsest.
        length: tokens it has.
        expected: tokens it should have.
    """

    def __init__(self, message: str, level: int, length: int, expected: int) -> None:
        super().__init__(message)
        self.level, self.length, self.expected = level, length, expected


class TokenRangeError(TokenError):
    """A code outside its codebook, or an id outside the range of its position.

    Attributes:
        position: index along the level, or along the interleaved sequence, from 0.
        value: what stands there.
        level: the code's level, from 0, the coarsest.
    """

    def __init__(self, message: str, position: int, value: int, level: int) -> None:
        super().__init__(message)
        self.position, self.value, self.level = position, value, level
