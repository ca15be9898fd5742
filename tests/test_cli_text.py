"""Wording of names, errors and quantities; what goes to which stream."""

from __future__ import annotations

import doctest
import errno
import io
import json
import pickle
from pathlib import Path

import pytest

from snac.errors import BrokenDownloadError, ChangedModelError, UnreachableModelError
from snaccli import errors
from snaccli.cli.app import run
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.errors import (
    AudioError,
    ContainerError,
    ExitStatus,
    LevelsError,
    NotSnacFileError,
    OutputError,
    OutputExistsError,
    ParameterError,
    Remedy,
    TruncatedError,
    UnknownModelError,
    UsageError,
    WeightsMismatchError,
    about,
)


def test_the_examples_in_the_docstrings_hold():
    for module, examples in ((text, 4), (errors, 1)):
        results = doctest.testmod(module)
        assert results.attempted >= examples
        assert results.failed == 0


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.wav", "plain name.wav"),
        ("[bold]x[/bold] :smile:.wav", "[bold]x[/bold] :smile:.wav"),
        ("Größe 音.wav", "Größe 音.wav"),
        ("two\nlines\t.wav", r"two\nlines\t.wav"),
        ("\x1b[31mred\x07.wav", r"\x1b[31mred\x07.wav"),
        ("bytes\udcff\udc80.wav", r"bytes\xff\x80.wav"),
        ("\u202egnp.wav", r"\u202egnp.wav"),
        ("\ud800.wav", r"\ud800.wav"),
    ],
)
def test_names_are_shown_on_one_line_without_control_codes(name, shown):
    assert errors.shown(name) == shown
    assert text.explain(AudioError("not audio"), name) == f"{shown}: not audio"


def test_streams_are_called_by_what_they_are():
    assert text.explain(AudioError("not audio"), "-") == "standard input: not audio"
    assert text.explain(AudioError("is empty", "-"), "-") == "standard input is empty"
    assert text.explain(OutputError("is a terminal", "-"), "a.wav") == "a.wav: standard output is a terminal"


def test_errors_are_explained_on_one_line():
    assert text.explain(AudioError("is\nnot  audio"), "a.wav") == "a.wav: is not audio"
    unread = AudioError("cannot be read: permission denied", "a.wav")
    assert text.explain(unread, "a.wav") == "a.wav cannot be read: permission denied", "not named twice"
    assert text.explain(unread) == "a.wav cannot be read: permission denied"
    assert text.explain(unread, "b.wav") == "b.wav: a.wav cannot be read: permission denied"
    assert text.explain(AudioError("is a folder", "a\nb"), "a\nb") == r"a\nb is a folder"
    assert text.explain(AudioError("no audio in it"), "in") == "in: no audio in it"
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "a.wav")
    assert text.explain(missing, "a.wav") == "a.wav: no such file: check the name"
    full = OSError(errno.ENOSPC, "No space left on device", "out/b.snac")
    assert text.explain(full, "b.wav").startswith("b.wav: out/b.snac: no space left on the disk: free some")
    other = OSError(errno.EBUSY, "Device or resource busy")
    assert text.explain(other, "a.wav") == "a.wav: Device or resource busy"
    assert "defect of snac: ZeroDivisionError: by zero" in text.explain(ZeroDivisionError("by zero"))
    assert "--debug" in text.explain(AssertionError())
    assert "memory" in text.explain(MemoryError())


@pytest.mark.parametrize("name", ["the", "not", "there", "level", "cannot", "a file"])
def test_a_file_keeps_its_name_whatever_it_is_called(name):
    for problem in (
        TruncatedError("the file ends within its header"),
        NotSnacFileError("not a .snac file: it does not begin with 'snac'"),
        ContainerError("there are bytes after the last stream"),
        ContainerError("level 2 of 4 is wrong"),
    ):
        assert text.explain(problem, name) == f"{name}: {problem}"
        with pytest.raises(ContainerError) as raised, about(name):
            raise problem
        assert text.explain(raised.value, name) == f"{name}: {problem.problem}"
    assert text.explain(AudioError("cannot be read: no", name), name) == f"{name} cannot be read: no"


def test_remedies_are_the_options_of_the_command_line():
    assert set(text.REMEDIES) == set(Remedy)
    for error, line in (
        (OutputExistsError("a.snac"), "a.snac exists already: give -f to overwrite it"),
        (ParameterError("changes", "batch", "write key=value"), "--set batch: write key=value"),
        (UsageError("too large", remedy=Remedy.SMALLER_IDS), "too large; choose a smaller --start-id"),
        (LevelsError(5, 4), "--levels 5: the file has 4 levels; choose 1 to 4"),
        (
            UnknownModelError("x/y"),
            "the file was made with 'x/y'; name the model, or its folder, with -m",
        ),
        (
            WeightsMismatchError("mini", "0" * 16, "other", "1" * 16),
            "the file was made with 'mini' of fingerprint 0000000000000000, the model 'other' here has "
            "1111111111111111; name the right model with -m, or force it with --any-weights",
        ),
    ):
        assert text.explain(error) == line
        assert " -" not in str(error), "a Python caller is not told of options"
    exists = text.explain(OutputExistsError("a.snac"), None, text.RESUMABLE)
    assert exists == "a.snac exists already: give -f to overwrite it, or --skip-existing"


def streams(**kwargs):
    console = Console(io.StringIO(), io.StringIO(), {})
    for name, value in kwargs.items():
        setattr(console, name, value)
    return console


def written(console):
    return console.stdout.getvalue(), console.stderr.getvalue()


def test_models_that_are_not_here_are_fetched_by_a_command():
    folder = Path("hub") / "models--me--voice"
    unreachable = text.explain(UnreachableModelError("me/voice@v2", "no network", folder))
    assert unreachable == (
        "model 'me/voice@v2' is not on this machine (no network): run `snac models pull me/voice@v2` on a "
        f"connected machine and copy the folder models--me--voice of its cache into {folder.parent} here, or "
        "give any folder with config.json and weights as -m FOLDER"
    )
    broken = text.explain(BrokenDownloadError("me/voice", "me/voice", "reset"))
    assert broken == "me/voice: the download broke off (reset): run `snac models pull me/voice`"
    changed = text.explain(
        ChangedModelError("24khz", folder, "is not the file that was published: it has 3 bytes")
    )
    assert changed.endswith("published: it has 3 bytes; fetch it again with `snac models pull 24khz`")
    for error in (UnreachableModelError("a", "b", folder), BrokenDownloadError("a", "b", "c")):
        assert "snac models" not in str(pickle.loads(pickle.dumps(error)))


def test_quiet_leaves_results_to_the_caller_and_errors_to_all():
    console = streams(quiet=True, verbose=True)
    console.note("note")
    console.detail("detail")
    console.error(AudioError("bad"), "a.wav")
    assert written(console) == ("", "snac: a.wav: bad\n")


def test_json_alone_is_on_standard_output():
    console = streams(json=True)
    console.note("note")
    console.detail("not asked for")
    console.result("a table")
    console.emit({"path": "a\udcff"})
    out, err = written(console)
    assert json.loads(out) == {"path": "a\udcff"}
    assert err == "note\n"


def test_without_json_nothing_is_emitted():
    console = streams()
    console.emit({"path": "a"})
    console.result("told")
    assert written(console) == ("told\n", "")


def test_debug_shows_where_an_error_came_from():
    console = streams(debug=True)
    with pytest.raises(AudioError) as raised:
        raise AudioError("bad")
    assert console.ended_by(raised.value) == ExitStatus.FAILED
    out, err = written(console)
    assert out == ""
    assert err.startswith("Traceback")
    assert err.endswith("\nsnac: bad\n")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (AudioError("bad"), 1, "snac: bad\n"),
        (UsageError("wrong"), 2, "snac: wrong\n"),
        (KeyboardInterrupt(), 130, "snac: interrupted\n"),
        (BrokenPipeError(), 1, ""),
        (PermissionError(13, "Permission denied", "x"), 1, "snac: x: permission denied: check the"),
        (RuntimeError("boom"), 1, "snac: this is a defect of snac: RuntimeError: boom"),
    ],
)
def test_whatever_ends_a_run_becomes_one_line_and_a_status(error, status, line):
    console = streams()
    assert console.ended_by(error) == status
    out, err = written(console)
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == bool(line)


def test_a_stream_of_few_characters_does_not_stop_the_run():
    raw = io.BytesIO()
    console = Console(io.TextIOWrapper(raw, "ascii"), io.StringIO(), {})
    console.result("Größe 音")
    assert raw.getvalue() == b"Gr\\xf6\\xdfe \\u97f3\n"


def test_a_standard_error_that_is_gone_does_not_stop_the_run():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    console = Console(io.StringIO(), Gone(), {})
    console.note("lost")
    console.error(AudioError("lost too"))
    closed = io.StringIO()
    closed.close()
    Console(io.StringIO(), closed, {}).note("lost")


class FakeTerminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("term", "drawn"), [("xterm-256color", True), ("dumb", False), ("unknown", False)])
def test_bars_are_for_terminals_that_can_redraw(term, drawn):
    assert Console(io.StringIO(), FakeTerminal(), {"TERM": term}).interactive is drawn
    assert not Console(FakeTerminal(), io.StringIO(), {"TERM": term}).interactive


@pytest.mark.parametrize("command", ["models show", "models pull", "prior show"])
def test_what_fails_as_a_whole_is_told_in_json_too(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    console = Console(io.StringIO(), io.StringIO(), {})
    assert run([*command.split(), "nope", "--json"], console) == 1
    told = json.loads(console.stdout.getvalue())
    assert console.stderr.getvalue() == f"snac: {told['error']}\n"
    console = Console(io.StringIO(), io.StringIO(), {})
    assert run([*command.split(), "nope"], console) == 1
    assert console.stdout.getvalue() == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--threads", "300"], "--threads"),
        (["--rate-distortion", "inf"], "--rate-distortion inf: give 0 or more"),
        (["--rate-distortion", "nan"], "--rate-distortion"),
    ],
)
def test_numbers_that_cannot_be_are_told_as_options(tmp_path, words, told):
    import numpy as np
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros(100), 8000)
    console = Console(io.StringIO(), io.StringIO(), {})
    assert run(["encode", str(tmp_path / "a.wav"), *words], console) == ExitStatus.USAGE
    err = console.stderr.getvalue()
    assert told in err
    assert "defect" not in err


def test_nothing_ends_without_a_word(monkeypatch):
    def broken(error, subject=None, remedies=None):
        raise KeyError("of the words")

    monkeypatch.setattr("snaccli.cli.ui.console.explain", broken)
    console = Console(io.StringIO(), io.StringIO(), {})
    assert run(["info", "absent.snac"], console) == 1
    assert "defect of snac: KeyError('of the words')" in console.stderr.getvalue()
