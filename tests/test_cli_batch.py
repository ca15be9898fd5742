"""encode and decode around a stand-in for the codec: guards, batches, stops."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import threading
import time
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

from snaccli.cli.app import run
from snaccli.cli.batch import Batch, Choices, FileWork
from snaccli.cli.plan import Plan
from snaccli.cli.ui.console import Console
from snaccli.errors import AudioError, ModelNotFoundError
from snaccli.workers import Job, available


@dataclass(frozen=True)
class Result:
    source: str
    output: str
    note: str
    duration_s: float = 205.0
    bytes: int = 36400
    bitrate_bps: float = 1420.0
    seconds: float = 11.4
    sample_rate: int = 44100
    channels: int = 1


class Pool:
    """The models of a run; the loaded ones are noted with where and how they compute."""

    def __init__(self, noted, choice, device, threads):
        self.choice, self.device, self.threads = choice, device, threads
        self.loaded = []
        self._noted = noted

    def get(self, choice=None):
        choice = choice or self.choice
        if choice == "absent":
            raise ModelNotFoundError("no model 'absent'; see 'snac models list'")
        if not self.loaded:
            self._noted.append((choice, self.device, self.threads))
            self.loaded.append(
                types.SimpleNamespace(name=choice, fingerprint="0123456789abcdef", device="cpu")
            )


class StandIn(types.ModuleType):
    """A module in the place of snaccli.codec: what a file does is written in it."""

    def __init__(self):
        super().__init__("snaccli.codec")
        self.loaded = []
        self.calls = []
        self.encode_file = self.decode_file = self._convert

    def ModelPool(self, choice, *, device, threads, prior=True):  # noqa: N802 (a class of the library)
        return Pool(self.loaded, choice, device, threads)

    def _convert(self, source, output, *, progress, **options):
        """As the library does: the input is opened before a model is loaded."""
        self.calls.append((source, output, options))
        what = Path(source).read_text()
        if what == "unreadable":
            raise AudioError("not audio")
        options["model"].get()
        progress.started(205.0)
        progress(0.5)
        if what == "bad":
            raise AudioError("not audio that can be read; give a WAV or FLAC file")
        if what == "bug":
            raise ZeroDivisionError("division by zero")
        if what == "full":
            raise OSError(errno.ENOSPC, "No space left on device")
        if what == "stop":
            raise KeyboardInterrupt
        Path(output).write_text(what)
        progress(1.0)
        return Result(source, output, "stereo downmixed to mono" if what == "stereo" else "")


@pytest.fixture
def codec(monkeypatch):
    codec = StandIn()
    monkeypatch.setitem(sys.modules, "snaccli.codec", codec)
    return codec


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Terminal(io.StringIO):
    def isatty(self):
        return True


def call(*arguments, stdout=None, stderr=None):
    console = Console(stdout or io.StringIO(), stderr or io.StringIO(), {"TERM": "xterm", "COLUMNS": "80"})
    status = run(arguments, console)
    return status, console.stdout.getvalue(), console.stderr.getvalue()


def write(*names, text="mono"):
    for name in names:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


LINE = "song.wav -> song.snac  3:25  1.42 kbit/s  36.4 kB  (stereo downmixed to mono)  18x real time\n"


def test_one_file_is_one_line(codec):
    write("song.wav", text="stereo")
    assert call("encode", "song.wav") == (0, "", LINE)
    assert Path("song.snac").read_text() == "stereo"
    assert codec.loaded == [("mini", "auto", available())]
    (source, output, options), *rest = codec.calls
    assert (source, output, rest) == ("song.wav", "song.snac", [])
    assert options.pop("model").choice == "mini"
    assert options == {"channels": "mono", "rate_distortion": 0.0, "overwrite": False}


@pytest.mark.parametrize(
    ("job", "line"),
    [(Job("-", "-"), "standard input -> standard output"), (Job("./-", "a.snac"), "./- -> a.snac")],
)
def test_streams_are_called_by_what_they_are(job, line):
    console = Console(io.StringIO(), io.StringIO(), {})
    work = FileWork(
        "done", lambda source, output, progress: Result(source, output, ""), lambda result: ["", "all"], str
    )
    batch = Batch(console, Plan([job], False, [], []), Choices(False, False, None, None))
    assert batch.run(work) == 0
    assert console.stderr.getvalue() == f"{line}  all\n"


def test_quiet_and_verbose(codec):
    write("song.wav")
    assert call("encode", "-q", "song.wav", "-o", "a") == (0, "", "")
    status, out, err = call("encode", "-v", "song.wav", "-o", "b")
    assert (status, out) == (0, "")
    assert "model mini, fingerprint 0123456789abcdef, on cpu" in err
    assert "1 file at once, " in err


def test_options_reach_the_codec(codec):
    write("song.wav", "song.snac")
    call("encode", "song.wav", "-f", "--channels", "keep", "-m", "24khz", "--device", "cpu", "--threads", "2")
    assert codec.loaded == [("24khz", "cpu", 2)]
    assert codec.calls[0][2]["channels"] == "keep"
    assert codec.calls[0][2]["overwrite"] is True
    words = "--rate model --levels 2 --salvage --start 1:30 --duration 10 --seed 7 --no-noise --any-weights"
    call("decode", "song.snac", "-m", "mine", "-o", "x.flac", "--format", "flac", *words.split())
    _, output, options = codec.calls[1]
    assert output == "x.flac"
    assert options.pop("model").choice == "mine"
    assert options == {
        "rate": "model",
        "levels": 2,
        "salvage": True,
        "start": 90.0,
        "duration": 10.0,
        "seed": 7,
        "noise": False,
        "any_weights": True,
        "audio_format": "flac",
        "overwrite": False,
    }


def test_decode_without_options_takes_the_defaults(codec):
    write("song.snac")
    assert call("decode", "song.snac", "-m", "mine")[0] == 0
    _, output, options = codec.calls[0]
    assert output == "song.wav"
    assert (options["start"], options["duration"], options["levels"], options["noise"]) == (
        0.0,
        None,
        None,
        True,
    )


def test_a_lone_file_that_cannot_be_read_is_told_of_before_a_model_is_loaded(codec):
    write("a.wav", text="unreadable")
    assert call("encode", "a.wav") == (1, "", "snac: a.wav: not audio\n")
    assert codec.loaded == []


def test_an_existing_output_is_kept_and_no_model_loaded_for_it(codec):
    write("song.wav")
    write("song.snac", text="precious")
    status, _, err = call("encode", "song.wav")
    assert status == 1
    assert err == "snac: song.wav: song.snac exists already: give -f to overwrite it, or --skip-existing\n"
    assert call("encode", "--skip-existing", "song.wav") == (0, "", "")
    assert (codec.loaded, Path("song.snac").read_text()) == ([], "precious")
    assert call("encode", "-f", "song.wav")[0] == 0
    assert Path("song.snac").read_text() == "mono"


def test_a_batch_goes_on_after_bad_files_and_names_each(codec):
    write(*(f"in/{n:02}.wav" for n in range(50)))
    write("in/07.wav", text="bad")
    write("in/23.wav", text="bug")
    write("in/41.wav", text="full")
    status, out, err = call("encode", "in", "-o", "out")
    assert status == 1
    assert out == ""
    assert len(list(Path("out").iterdir())) == 47
    assert len(codec.loaded) == 1
    lines = err.splitlines()
    assert len([line for line in lines if " -> " in line]) == 47
    assert "snac: in/07.wav: not audio that can be read; give a WAV or FLAC file" in lines
    assert lines[-6] == "47 of 50 files encoded, 3 failed"
    assert lines[-5].startswith("  2:40:35 of audio  1.42 kbit/s  1.7 MB  ")
    assert lines[-4:] == [
        "failed:",
        "  in/07.wav: not audio that can be read; give a WAV or FLAC file",
        "  in/23.wav: this is a defect of snac: ZeroDivisionError: division by zero: "
        "run again with --debug and report the traceback",
        "  in/41.wav: no space left on the disk: free some, or write to another folder",
    ]
    assert "\x1b" not in err


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_json_tells_of_every_file_and_standard_error_of_the_rest(codec, jobs):
    write("in/a.wav", "in/b.wav", "in/sub/c.wav", "out/b.snac")
    write("in/a.wav", text="bad")
    status, out, err = call("encode", "in", "-o", "out", "--json", "--skip-existing", "-j", jobs)
    assert status == 1
    told = {value["source"]: value for value in json.loads(out)}
    assert told["in/a.wav"]["error"].startswith("not audio")
    assert told["in/b.wav"] == {"source": "in/b.wav", "output": "out/b.snac", "skipped": True}
    assert told["in/sub/c.wav"]["bitrate_bps"] == 1420.0
    assert "1 of 3 files encoded, 1 skipped (output exists), 1 failed" in err


def test_json_of_one_file_is_one_object(codec):
    write("song.wav")
    status, out, _ = call("encode", "--json", "song.wav")
    assert status == 0
    assert json.loads(out)["output"] == "song.snac"
    assert isinstance(json.loads(call("encode", "--json", ".", "-o", "out")[1]), list)


def test_folders_are_made_for_what_is_written_and_no_others(codec):
    write("in/good/deep/a.wav")
    write("in/bad/deep/b.wav", text="bad")
    assert call("encode", "in", "-o", "new/out")[0] == 1
    made = sorted(str(path) for path in Path("new").rglob("*"))
    assert made == ["new/out", "new/out/good", "new/out/good/deep", "new/out/good/deep/a.snac"]


def test_a_folder_that_cannot_be_made(codec):
    write("in/a.wav", "in/sub/b.wav")
    write("out/sub", text="a file")
    status, _, err = call("encode", "in", "-o", "out")
    assert status == 1
    assert Path("out/a.snac").exists()
    assert Path("out/sub").read_text() == "a file"
    assert "snac: in/sub/b.wav: out/sub/b.snac: a part of the path is a file" in err


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_a_folder_without_anything_to_do(codec, command):
    write("in/readme.txt")
    status, out, err = call(command, "in")
    assert status == 1
    assert out == ""
    assert err.startswith("snac: in: no ")
    assert "in this folder" in err
    assert err.count("\n") == 1
    assert codec.loaded == []


def test_a_missing_model_ends_the_run_before_any_file(codec):
    write("in/a.wav", "in/b.wav")
    status, out, err = call("encode", "in", "-o", "out", "-m", "absent")
    assert (status, out, codec.calls) == (1, "", [])
    assert err == "snac: no model 'absent'; see 'snac models list'\n"
    assert not Path("out").exists()


def test_clashes_and_wrong_outputs_are_wrong_usage(codec):
    write("in/a.wav", "in/a.flac", "x.wav", "y.wav")
    assert call("encode", "in")[0] == 2
    assert call("encode", "x.wav", "-o", "x.wav") == (
        2,
        "",
        "snac: x.wav: input and output are the same file; give another output with -o\n",
    )
    assert call("encode", "x.wav", "y.wav", "-o", "-")[0] == 2
    assert call("encode", "x.wav", "-o", "-", "--json")[0] == 2
    assert codec.loaded == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("encode x.wav -f --skip-existing", "-f and --skip-existing exclude each other"),
        ("decode x.snac -f --skip-existing", "-f and --skip-existing exclude each other"),
        ("encode x.wav -o y.wav -f", "y.wav is a name of audio, and what is written is none: name it .snac"),
        ("encode x.wav -o new.FLAC", "new.FLAC is a name of audio"),
        ("encode x.snac", "x.snac is a .snac file already; decode it with 'snac decode'"),
        ("encode x.wav y.wav -o one.snac", "one.snac is the name of a file; for several inputs"),
        ("decode x.snac --format flac -o p.wav", "--format flac contradicts the name p.wav"),
    ],
)
def test_what_contradicts_itself_is_wrong_usage(codec, arguments, told):
    write("x.wav", "y.wav", "x.snac")
    status, out, err = call(*arguments.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert codec.calls == []
    assert sorted(os.listdir()) == ["x.snac", "x.wav", "y.wav"]


def test_a_name_that_looks_like_an_option_is_told_how_to_be_written(codec):
    write("-dash.wav")
    status, _, err = call("encode", "-dash.wav")
    assert (status, err.count("\n")) == (2, 1)
    assert err.endswith("; the file of that name is written ./-dash.wav; see 'snac encode --help'\n")
    assert call("encode", "./-dash.wav")[0] == 0
    assert "is written" not in call("encode", "-ding.wav")[2]


def test_bytes_are_not_written_to_a_terminal(codec):
    write("x.wav")
    status, out, err = call("encode", "x.wav", "-o", "-", stdout=Terminal())
    assert (status, out) == (2, "")
    assert "standard output is a terminal" in err


def test_an_interrupt_tells_what_was_done_and_ends_with_130(codec):
    write("in/a.wav", "in/c.wav", "in/d.wav")
    write("in/b.wav", text="stop")
    status, out, err = call("encode", "in", "-o", "out", "--json", "-j", "1")
    assert status == 130
    assert [value["source"] for value in json.loads(out)] == ["in/a.wav"]
    lines = err.splitlines()
    assert lines[-3] == "1 of 4 files encoded, 3 not done"
    assert lines[-1] == "snac: interrupted"
    assert os.listdir("out") == ["a.snac"]


def test_an_interrupt_stops_every_worker(codec, monkeypatch):
    write(*(f"in/{n}.wav" for n in range(8)))
    begun = threading.Barrier(3, timeout=300)

    def endless(source, output, *, progress, **options):
        codec.calls.append(source)
        if source == "in/0.wav":
            begun.wait()
            raise KeyboardInterrupt
        begun.wait()
        while True:
            progress(0.1)

    monkeypatch.setattr(codec, "encode_file", endless)
    status, _, err = call("encode", "in", "-o", "out", "-j", "3")
    assert status == 130
    assert err.splitlines()[-1] == "snac: interrupted"
    assert len(codec.calls) == 3
    assert not Path("out").exists()


def test_what_ends_while_the_run_is_being_stopped_counts(codec, monkeypatch):
    write(*(f"in/{n}.wav" for n in range(8)))
    begun = threading.Barrier(3, timeout=300)

    def slow(source, output, *, progress, **options):
        begun.wait()
        if source == "in/0.wav":
            raise KeyboardInterrupt
        time.sleep(0.3)
        Path(output).write_text("done")
        return Result(source, output, "")

    monkeypatch.setattr(codec, "encode_file", slow)
    status, out, err = call("encode", "in", "-o", "out", "-j", "3", "--json")
    assert status == 130
    assert sorted(value["source"] for value in json.loads(out)) == ["in/1.wav", "in/2.wav"]
    assert "2 of 8 files encoded, 6 not done" in err
    assert sorted(os.listdir("out")) == ["1.snac", "2.snac"]


ODD = ["a b.wav", "[bold]red[/].wav", ":smile:.wav", "new\nline.wav", "-dash.wav", "100%.wav", "\x1b[31m.wav"]


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("name", [*ODD, os.fsdecode(b"\xff\xfe.wav")])
def test_odd_names_are_coded_and_shown_as_they_are(codec, stream, name):
    try:
        write(name)
    except OSError as error:
        pytest.skip(f"file names of this kind: {error.strerror}")
    status, _, err = call("encode", "-v", "--", name, stderr=stream())
    assert status == 0
    assert os.path.exists(name[:-4] + ".snac")
    shown = "".join(c if c.isprintable() else "?" for c in name.replace("\n", "\\n").replace("\x1b", "\\x1b"))
    assert shown.replace("??", r"\xff\xfe") in err
    assert json.loads(call("encode", "--json", "-f", "--", name)[1])["source"] == name


def test_bars_are_drawn_on_a_terminal_and_gone_at_the_end(codec):
    write(*(f"in/[red]{n}.wav" for n in range(3)))
    status, _, err = call("encode", "in", "-o", "out", stderr=Terminal())
    assert status == 0
    assert "3 files" in err
    assert "\x1b[" in err
    assert "3 of 3 files encoded" in err.splitlines()[-2]


def test_linked_folders_are_remarked(codec):
    write("in/a.wav")
    Path("in/circle").symlink_to(Path("in").absolute(), target_is_directory=True)
    status, _, err = call("encode", "in", "-o", "out")
    assert status == 0
    assert "in/circle: linked folder not followed\n" in err


def test_debug_adds_the_traceback_of_a_defect(codec):
    write("a.wav", text="bug")
    status, _, err = call("encode", "a.wav", "--debug")
    assert status == 1
    assert err.startswith("Traceback")
    assert "ZeroDivisionError" in err
    assert "Traceback" not in call("encode", "a.wav")[2]


def test_a_reader_that_has_gone_away_is_no_error(codec, monkeypatch):
    def broken(source, output, **options):
        raise BrokenPipeError

    write("a.wav")
    monkeypatch.setattr(codec, "encode_file", broken)
    assert call("encode", "a.wav", "-o", "-") == (1, "", "")


def test_files_at_once_and_threads_share_the_processors(codec, monkeypatch):
    monkeypatch.setattr("snaccli.workers.available", lambda: 4)
    write(*(f"in/{n}.wav" for n in range(3)))

    def told(*options):
        status, _, err = call("encode", "in", "-o", "out", "-f", "-v", *options)
        assert status == 0
        return codec.loaded[-1][2], next(line for line in err.splitlines() if "at once" in line)

    assert told() == (1, "3 files at once, 1 thread each, on 4 processors")
    assert told("-j", "2") == (2, "2 files at once, 2 threads each, on 4 processors")
    assert told("--threads", "4") == (4, "1 file at once, 4 threads each, on 4 processors")
    assert told("-j", "2", "--threads", "3") == (3, "2 files at once, 3 threads each, on 4 processors")


def test_a_format_that_cannot_be_written_is_told_of_before_a_model_is_loaded(codec):
    write("in/a.snac", "in/b.snac")
    for arguments in (["in", "--format", "docx"], ["in/a.snac", "-o", "a.docx"]):
        status, out, err = call("decode", *arguments, "-m", "mine")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "cannot write audio as docx: choose one of wav" in err
    assert (codec.loaded, codec.calls) == ([], [])
