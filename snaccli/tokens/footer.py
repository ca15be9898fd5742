"""How many values each row group of a Parquet file has, by the file's own footer.

pyarrow, asked for it, ends the process where the metadata of a column contradicts itself (26.0, by an
exception that it does not catch), so the footer is read here: a struct in Thrift's compact protocol, whose
length and the four bytes PAR1 end the file (Apache Parquet, format 2.11, "File Format" and parquet.thrift).
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO

_END = 8  # bytes of the length and of PAR1
_ROW_GROUPS, _COLUMNS, _METADATA, _VALUES = 4, 1, 3, 5  # numbers of the fields in parquet.thrift


def values_of_groups(file: BinaryIO) -> list[int]:
    """The numbers of values of each row group, all columns together, as the footer tells them.

    Raises:
        ValueError: there is no such footer.
    """
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END))
    length = int.from_bytes(file.read(4), "little")
    if length > size - _END:
        raise ValueError("the footer is longer than the file")
    file.seek(size - _END - length)
    try:
        groups = _Compact(file.read(length)).struct()[_ROW_GROUPS]
        return [sum(column[_METADATA][_VALUES] for column in group[_COLUMNS]) for group in groups]
    except (LookupError, TypeError, RecursionError) as error:
        raise ValueError("the footer tells no row groups") from error


class _Compact:
    """Values in Thrift's compact protocol; of text and of numbers with a point only the lengths are read."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    def struct(self) -> dict[int, Any]:
        """The fields by their numbers."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._whole()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2, 3):  # in a list, a truth value takes a byte
            return self._byte()
        if kind in (4, 5, 6):
            return self._whole()
        if kind in (7, 8):
            size = 8 if kind == 7 else self._count()
            self._place += size
            if self._place > len(self._data):
                raise ValueError("the footer ends too early")
            return None
        if kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._count()
            return [self._value(head & 15) for _ in range(count)]
        if kind == 12:
            return self.struct()
        raise ValueError(f"the footer has a value of kind {kind}")  # maps, which no footer has

    def _byte(self) -> int:
        self._place += 1
        return self._data[self._place - 1]

    def _count(self) -> int:
        count = shift = 0
        while True:
            byte = self._byte()
            count |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return count
            if shift > 63:
                raise ValueError("the footer has a number of more than 64 bits")

    def _whole(self) -> int:
        count = self._count()
        return count >> 1 ^ -(count & 1)
