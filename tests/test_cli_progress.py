"""How far a batch is: by seconds of audio where they are known, else by bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaccli.cli.ui.progress import weights
from snaccli.workers import Job


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    """Files of 100, 200, ... bytes; the last one is not there."""
    names = ["a.wav", "b.WAV", "c.mp3", "d.mp3", "e.ogg", "gone"]
    for number, name in enumerate(names[:-1]):
        (tmp_path / name).write_bytes(bytes(100 * (number + 1)))
    return [Job(str(tmp_path / name), "-") for name in names]


def weighed(jobs: list[Job], lengths: dict[str, float], seconds: float = 60.0) -> list[float]:
    found = weights(jobs, lambda job: lengths.get(Path(job.source).name), seconds)
    assert list(found) == jobs
    return list(found.values())


def test_known_lengths_count_as_they_are(jobs: list[Job]) -> None:
    lengths = {"a.wav": 5.0, "b.WAV": 1.0, "c.mp3": 7.0, "d.mp3": 2.5, "e.ogg": 9.0, "gone": 3.0}
    assert weighed(jobs, lengths) == list(lengths.values())


def test_others_are_guessed_by_the_bytes_of_their_kind_else_of_all(jobs: list[Job]) -> None:
    found = weighed(jobs, {"a.wav": 1.0, "c.mp3": 30.0, "e.ogg": 0.0})
    assert found == pytest.approx([1.0, 2.0, 30.0, 40.0, 500 * 31 / 400, 31 / 400])


def test_without_any_length_bytes_count(jobs: list[Job]) -> None:
    assert weighed(jobs, {}) == [100, 200, 300, 400, 500, 1]


def test_no_more_time_is_spent_than_allowed(jobs: list[Job]) -> None:
    assert weighed(jobs, {"a.wav": 5.0}, seconds=0.0) == [100, 200, 300, 400, 500, 1]
    assert weights([], lambda job: 1.0) == {}
