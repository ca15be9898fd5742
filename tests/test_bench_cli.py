"""``snac bench`` as its user meets it: reports, peers that are missing, options that do not go together."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from snaccli import bench
from snaccli.cli.app import run
from snaccli.cli.ui.console import Console
from tests.pcm_codec import install, tone, write


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    install(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for number in range(5):
        write(tmp_path / "in" / f"{number}.wav", tone(0.6, seed=number) * (1 - 0.1 * number))
    return tmp_path


def call(*arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return run(list(arguments), Console(out, err, {})), out.getvalue(), err.getvalue()


def test_a_report_is_written_and_its_size_said() -> None:
    status, out, err = call("bench", "in", "--html", "r.html", "--details", "2", "--clip", "0.5")
    assert status == 0
    assert "mean of 5" in out
    assert "worst by mel distance: " in out
    page = Path("r.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 2 * 2
    assert err == f"r.html: {len(page.encode()) / 1e6:.1f} MB, excerpts of 2 recordings, 0.5 s each at most\n"


def test_a_recording_that_has_gone_costs_its_excerpts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fill = bench.Gallery.fill

    def without_one(self: bench.Gallery, *arguments: Any) -> None:
        Path("in/0.wav").unlink()
        fill(self, *arguments)

    monkeypatch.setattr(bench.Gallery, "fill", without_one)
    status, out, err = call("bench", "in", "--html", "r.html", "--clip", "0.5")
    assert status == 0
    assert "mean of 5" in out
    assert "excerpts of 4 recordings" in err
    assert "snac: no excerpts of in/0.wav: " in err
    assert Path("r.html").read_text(encoding="utf-8").count("<audio") == 4 * 2


def test_quiet_prints_no_table_but_what_was_asked_for() -> None:
    assert call("bench", "in/0.wav", "-q") == (0, "", "")
    assert call("bench", "in/0.wav", "-q", "--html", "r.html") == (0, "", "")
    assert Path("r.html").exists()
    assert json.loads(call("bench", "in/0.wav", "-q", "--json")[1])["model"] == "mini"
    assert "in/0.wav" in call("bench", "in/0.wav", "-q", "--csv")[1]
    Path("in/broken.wav").write_text("hardly audio")
    status, out, err = call("bench", "in/broken.wav", "-q")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "in/broken.wav" in err


def test_a_report_that_exists_is_kept_unless_forced() -> None:
    Path("r.html").write_text("mine")
    status, out, err = call("bench", "in", "--html", "r.html")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err == "snac: r.html exists already: give -f to overwrite it\n"
    assert Path("r.html").read_text() == "mine"
    assert call("bench", "in/0.wav", "--html", "r.html", "-f", "-q")[0] == 0
    assert Path("r.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_an_interrupted_run_leaves_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "run", interrupted)
    assert call("bench", "in", "--html", "r.html")[0] == 130
    assert sorted(path.name for path in Path().iterdir()) == ["in"]


def test_a_missing_program_is_one_line_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    status, out, err = call("bench", "in/0.wav", "--against", "codec2:3200", "--json")
    assert status == 1
    assert json.loads(out)["model"] == "mini"
    assert err == "snac: codec2:3200 is left out: there is no c2enc on the PATH; install codec2\n"


def test_with_debug_the_traceback_of_a_failure_is_told() -> None:
    Path("in/broken.wav").write_text("hardly audio")
    status, _, err = call("bench", "in", "--csv")
    assert (status, "Traceback" in err) == (1, False)
    assert err.count("broken.wav") == 1
    status, _, err = call("bench", "in", "--csv", "--debug")
    assert status == 1
    assert "Traceback" in err
    assert "open_original" in err


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snaccli.bench.perceptual.find_spec", lambda name: None)
    status, out, err = call("bench", "in/0.wav")
    assert (status, err) == (0, "STOI and PESQ are left out; for them: pip install 'snaccli[metrics]'\n")
    assert "STOI" not in out
    assert call("bench", "in/0.wav", "-q")[2] == ""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--json", "--csv"], "--json and --csv would both go to standard output"),
        (["--json", "--html", "-"], "--json and --html - would both"),
        (["--against", "flac:5"], "there are opus:RATE"),
        (["--clip", "0"], "clip"),
        (["--details", "-1"], "details"),
    ],
)
def test_wrong_usage(arguments: list[str], told: str) -> None:
    status, out, err = call("bench", "in", *arguments)
    assert (status, out) == (2, "")
    assert told in err


def test_several_codecs_are_compared_at_the_end() -> None:
    status, out, _ = call("bench", "in", "-m", "one", "-m", "small", "--csv")
    assert (status, out.count("\n")) == (0, 1 + 10)
    status, out, _ = call("bench", "in", "-m", "one", "-m", "small")
    assert status == 0
    last = out[out.index("all codecs, means") :].splitlines()
    assert [line.split()[0] for line in last[-2:]] == ["one", "small"]
