"""Bench results as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict

from snaccli.bench.figures import FIGURES
from snaccli.bench.results import BenchResult, flat
from snaccli.io import files

__all__ = ["to_csv", "to_json"]

_CSV_COLUMNS = ("model", "levels", "path", "bytes", *(figure.key for figure in FIGURES), "error")


def to_json(results: Sequence[BenchResult]) -> str:
    """JSON text: one object for one model, a list of them for several. No NaN or Infinity: null instead."""
    objects = [result.to_dict() for result in results]
    return json.dumps(objects[0] if len(objects) == 1 else objects, indent=2, allow_nan=False)


def to_csv(results: Sequence[BenchResult]) -> str:
    """CSV text (RFC 4180 quoting, LF line ends): a header, then a row per codec and recording, no summary.

    Columns are keys of a file, led by the codec and the number of levels decoded, empty for all; an undefined
    figure is an empty field.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_COLUMNS)
    for result in flat(results):
        for file in result.files:
            row = {
                **asdict(file), "model": result.model, "levels": result.levels, "path": files.shown(file.path)
            }  # fmt: skip
            writer.writerow(["" if row[key] is None else row[key] for key in _CSV_COLUMNS])
    return text.getvalue()
