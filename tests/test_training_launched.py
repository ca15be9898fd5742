"""What a launcher says of a process, and who of several tells why they end."""

from __future__ import annotations

import io
import time

import pytest

from snaccli.cli.ui.console import Console
from snaccli.errors import UsageError
from snaccli.training.launched import main_speaks, process_count

MAIN = {"WORLD_SIZE": "2", "RANK": "0"}
OTHER = {"WORLD_SIZE": "2", "RANK": "1"}


class StoppedError(KeyboardInterrupt):
    status = 143


@pytest.mark.parametrize(
    ("environ", "count"),
    [
        ({}, 1),
        ({"WORLD_SIZE": ""}, 1),
        ({"WORLD_SIZE": "1", "RANK": "0"}, 1),
        (OTHER, 2),
        ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3"}, 4),
        ({"PMI_SIZE": "3"}, 3),
    ],
)
def test_launchers_are_understood(environ: dict[str, str], count: int) -> None:
    assert process_count(environ) == count


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr(time, "sleep", seconds.append)
    return seconds


@pytest.mark.parametrize("environ", [{}, MAIN, {"PMI_SIZE": "2", "PMI_RANK": "0"}])
def test_the_main_process_tells_at_once(environ: dict[str, str], waited: list[float]) -> None:
    with pytest.raises(UsageError), main_speaks(environ):
        raise UsageError("wrong")
    with pytest.raises(StoppedError), main_speaks(environ):
        raise StoppedError
    assert waited == []


def test_another_one_tells_what_ended_nobody_else(waited: list[float]) -> None:
    with pytest.raises(UsageError), main_speaks(OTHER):
        raise UsageError("wrong")
    assert waited == [10]


@pytest.mark.parametrize(("environ", "told"), [(MAIN, "snac: interrupted\n" * 2), (OTHER, "")])
def test_another_one_ends_in_silence_when_it_is_asked_to(
    environ: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminated(seconds: float) -> None:
        raise StoppedError

    monkeypatch.setattr(time, "sleep", terminated)
    console = Console(io.StringIO(), io.StringIO(), environ)
    for error in (StoppedError(), UsageError("wrong")):
        with pytest.raises(StoppedError) as ended, main_speaks(OTHER):
            raise error
        assert console.ended_by(ended.value) == 143  # wherever in the program it happens
    assert console.stderr.getvalue() == told  # type: ignore[attr-defined]
