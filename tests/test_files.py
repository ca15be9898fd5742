"""Files come into being whole or not at all, and every refusal is one line that names the path."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from snac.files import replacing
from snaccli.errors import AudioError, OutputError, SnacError
from snaccli.io import files
from snaccli.io.files import (
    OutputFile,
    cause,
    check_output,
    make_folder,
    open_input,
    open_output,
    same_file,
    shown,
    walk,
)

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX only")


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


class Stream:
    """In place of sys.stdout or sys.stdin."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self.buffer = buffer

    def isatty(self) -> bool:
        return self.buffer.isatty()


def one_line(error: pytest.ExceptionInfo[SnacError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert text
    return text


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def interrupted(writing: contextlib.AbstractContextManager[Any], kind: type[BaseException]) -> None:
    """Write half a file, then fail with `kind`."""
    with writing as out:
        out.write_bytes(b"half") if isinstance(out, Path) else out.write(b"half")
        raise kind


class TestWriting:
    def test_file_appears_whole_at_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bin"
        with open_output(path) as out:
            out.write(b"1234")
            out.seek(1)
            out.write(b"x")
            assert out.tell() == 2
            out.flush()
            assert not path.exists()
        assert path.read_bytes() == b"1x34"
        assert names(tmp_path) == ["a.bin"]

    @pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
    def test_exception_leaves_nothing_new(self, tmp_path: Path, kind: type[BaseException]) -> None:
        with pytest.raises(kind):
            interrupted(open_output(tmp_path / "a.bin"), kind)
        assert names(tmp_path) == []

    def test_exception_leaves_the_earlier_file(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bin"
        path.write_bytes(b"before")
        with pytest.raises(KeyboardInterrupt):
            interrupted(open_output(path, overwrite=True), KeyboardInterrupt)
        assert path.read_bytes() == b"before"
        assert names(tmp_path) == ["a.bin"]

    @posix
    def test_interrupted_process_leaves_nothing(self, tmp_path: Path) -> None:
        program = textwrap.dedent(
            """
            import sys, time
            from snaccli.io.files import open_output
            with open_output(sys.argv[1]) as out:
                out.write(b"half")
                out.flush()
                print("ready", flush=True)
                time.sleep(60)
            """
        )
        command = [sys.executable, "-c", program, str(tmp_path / "a.bin")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert len(names(tmp_path)) == 1
            process.send_signal(signal.SIGINT)
            process.wait(300)
        assert names(tmp_path) == []

    def test_files_of_others_stay(self, tmp_path: Path) -> None:
        """However old, and whatever they are called: nothing but the output itself is touched."""
        for name in (".snac-0123456789abcdef", ".snac-0123456789abcdef.wav", ".snac-keep"):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (0, 0))
        before = names(tmp_path)
        with open_output(tmp_path / "a.bin") as out:
            out.write(b"whole")
        assert names(tmp_path) == [*before, "a.bin"]

    @posix
    def test_new_file_has_the_rights_of_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            with open_output(tmp_path / "a.bin"):
                pass
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "a.bin").stat().st_mode) == 0o640

    @posix
    def test_overwritten_file_keeps_its_rights(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bin"
        path.write_bytes(b"")
        path.chmod(0o600)
        with open_output(path, overwrite=True) as out:
            out.write(b"new")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.read_bytes() == b"new"

    @posix
    def test_symbolic_link_is_written_through(self, tmp_path: Path) -> None:
        (tmp_path / "far").mkdir()
        target, link = tmp_path / "far" / "a.bin", tmp_path / "link.bin"
        target.write_bytes(b"old")
        link.symlink_to(target)
        with open_output(link, overwrite=True) as out:
            out.write(b"new")
        assert link.is_symlink()
        assert target.read_bytes() == b"new"
        assert names(tmp_path / "far") == ["a.bin"]

    def test_longest_name_the_disk_allows(self, tmp_path: Path) -> None:
        path = tmp_path / ("n" * 251 + ".bin")
        with open_output(path) as out:
            out.write(b"x")
        assert path.read_bytes() == b"x"

    @posix
    def test_name_that_is_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / os.fsdecode(b"\xff\xfe.bin")
        with open_output(path) as out:
            out.write(b"x")
        with pytest.raises(OutputError) as error, open_output(path):
            pass
        one_line(error).encode()


class TestFullDisk:
    @staticmethod
    def fill(monkeypatch: pytest.MonkeyPatch, room: int, code: int = errno.ENOSPC) -> None:
        """Let every new file hold `room` bytes."""
        real = os.fdopen

        class Small(io.FileIO):
            def write(self, data: Any) -> int:
                if self.tell() + len(data) > room:
                    raise OSError(code, os.strerror(code))
                return super().write(data)

        def small(descriptor: int, mode: str = "r", *rest: Any) -> Any:
            if "w" in mode:
                return io.BufferedRandom(Small(descriptor, "w+b"), 512)  # type: ignore[arg-type]
            return real(descriptor, mode, *rest)

        monkeypatch.setattr(files.os, "fdopen", small)

    @pytest.mark.parametrize("amount", [1001, 100_000])
    def test_leaves_nothing_and_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, amount: int
    ) -> None:
        self.fill(monkeypatch, 1000)  # 1001 bytes fit the buffer: the failure comes on closing
        with pytest.raises(OutputError, match="no space left") as error, open_output(tmp_path / "a") as out:
            out.write(bytes(amount))
        assert str(tmp_path / "a") in one_line(error)
        assert names(tmp_path) == []

    def test_quota_and_limits_are_told_apart(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fill(monkeypatch, 10, errno.EFBIG)
        with pytest.raises(OutputError, match="limit"), open_output(tmp_path / "a") as out:
            out.write(bytes(2000))

    @posix
    def test_limit_of_the_system(self, tmp_path: Path) -> None:
        program = textwrap.dedent(
            """
            import resource, sys
            from snaccli.io.files import open_output
            from snaccli.errors import OutputError
            resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
            try:
                with open_output(sys.argv[1]) as out:
                    out.write(bytes(100_000))
            except OutputError as error:
                sys.exit(str(error))
            """
        )
        command = [sys.executable, "-c", program, str(tmp_path / "a.bin")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 1
        assert "larger than" in done.stderr
        assert done.stderr.count("\n") == 1
        assert names(tmp_path) == []

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
    def test_device_that_is_full(self) -> None:
        with pytest.raises(OutputError, match=r"/dev/full.*no space"), open_output("/dev/full") as out:
            out.write(bytes(10))

    def test_rename_that_fails(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any) -> None:
            raise PermissionError(errno.EACCES, "in use")

        monkeypatch.setattr(files.os, "replace", refuse)
        with pytest.raises(OutputError, match="permission denied"), open_output(tmp_path / "a") as out:
            out.write(b"x")
        assert names(tmp_path) == []

    def test_folder_without_write_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any, **__: Any) -> int:
            raise PermissionError(errno.EACCES, "denied")

        monkeypatch.setattr(files.os, "open", refuse)
        with pytest.raises(OutputError, match="permission denied: check"), open_output(tmp_path / "a"):
            pass
        monkeypatch.setattr(files.os, "access", lambda *_: False)
        with pytest.raises(OutputError, match="cannot write in folder"):
            check_output(tmp_path / "a")


class TestGuards:
    def test_existing_output_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "a.bin"
        path.write_bytes(b"before")
        with (
            pytest.raises(OutputError, match="exists already: overwrite=True replaces it") as error,
            open_output(path) as out,
        ):
            out.write(b"x")
        assert str(path) in one_line(error)
        assert path.read_bytes() == b"before"

    @pytest.mark.parametrize("kind", ["same", "dots", "symbolic", "hard"])
    def test_output_equal_to_input(self, tmp_path: Path, kind: str) -> None:
        source = tmp_path / "a.bin"
        source.write_bytes(b"input")
        output = tmp_path / "b.bin"
        if kind == "symbolic":
            output.symlink_to(source)
        elif kind == "hard":
            os.link(source, output)
        else:
            output = source if kind == "same" else tmp_path / "." / "x" / ".." / "a.bin"
            (tmp_path / "x").mkdir()
        assert same_file(source, output)
        with (
            pytest.raises(OutputError, match="is the input itself"),
            open_output(output, source=source, overwrite=True),
        ):
            pass
        assert source.read_bytes() == b"input"

    def test_other_files_are_not_the_same(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        (tmp_path / "b").touch()
        assert not same_file(tmp_path / "a", tmp_path / "b")
        assert not same_file(tmp_path / "a", tmp_path / "none")
        assert not same_file("-", "-")
        assert not same_file("a\0b", "c")
        check_output(tmp_path / "c", source=tmp_path / "a")

    def test_places_where_nothing_can_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for output, said in {
            tmp_path: "is a folder",
            tmp_path / "none" / "a": "does not exist: create it",
            tmp_path / "file" / "a": "a part of the path is a file",
            tmp_path / ("n" * 300): "name is too long",
            "a\0b": "not a valid name",
        }.items():
            with pytest.raises(OutputError, match=said) as error:
                check_output(output)
            one_line(error)

    @posix
    def test_links_in_a_circle(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        with pytest.raises(OutputError, match="circle"):
            check_output(tmp_path / "a")

    @posix
    def test_devices_are_written_and_stay(self) -> None:
        with open_output("/dev/null") as out:
            assert not out.seekable
            out.write(b"x")
        assert stat.S_ISCHR(os.stat("/dev/null").st_mode)

    @posix
    def test_terminal_device_is_refused(self) -> None:
        import pty

        leader, follower = pty.openpty()
        try:
            with pytest.raises(OutputError, match="is a terminal"), open_output(os.ttyname(follower)):
                pass
        finally:
            os.close(leader)
            os.close(follower)

    def test_make_folder(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "a" / "b")
        make_folder(tmp_path / "a" / "b")
        assert (tmp_path / "a" / "b").is_dir()
        (tmp_path / "file").touch()
        for folder in (tmp_path / "file", tmp_path / "file" / "x", tmp_path / ("n" * 300), "a\0b"):
            with pytest.raises(OutputError, match="cannot create folder") as error:
                make_folder(folder)
            one_line(error)


class TestStandardOutput:
    def test_bytes_arrive_in_order(self, monkeypatch: pytest.MonkeyPatch) -> None:
        buffer = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", Stream(buffer))
        with open_output("-") as out:
            assert not out.seekable
            assert out.name == "standard output"
            out.write(b"12")
            out.write(memoryview(b"34"))
        assert buffer.getvalue() == b"1234"

    @pytest.mark.parametrize("stream", [Stream(Terminal()), io.StringIO(), None])
    def test_no_bytes_to_a_terminal(self, monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            with (
                pytest.raises(OutputError, match="name a file as the output") as error,
                open_output("-") as out,
            ):
                out.write(b"x")
        assert "standard output" in one_line(error)

    @posix
    @pytest.mark.parametrize(("target", "said"), [("/dev/full", "no space left"), ("pipe", "has ended")])
    @pytest.mark.parametrize("size", [100, 100_000])  # what stays in the buffer, and what does not
    def test_failure_is_one_line_and_nothing_more_at_exit(self, target: str, said: str, size: int) -> None:
        if target.startswith("/") and not os.path.exists(target):
            pytest.skip(f"no {target}")
        program = textwrap.dedent(
            """
            import sys
            from snaccli.io.files import open_output
            from snaccli.errors import OutputError
            sys.stdin.read()  # until the reader of our output has gone
            try:
                with open_output("-") as out:
                    out.write(bytes(int(sys.argv[1])))
            except OutputError as error:
                print(error, file=sys.stderr)
                sys.exit(1)
            """
        )
        with open(target if target.startswith("/") else os.devnull, "wb") as full:
            stdout = full if target.startswith("/") else subprocess.PIPE
            process = subprocess.Popen(
                [sys.executable, "-c", program, str(size)],
                stdin=subprocess.PIPE,
                stdout=stdout,
                stderr=subprocess.PIPE,
            )
            if process.stdout is not None:
                process.stdout.close()
            process.stdout = None
            _, said_by_process = process.communicate(b"", timeout=300)
        assert process.returncode == 1
        assert said in said_by_process.decode()
        assert said_by_process.count(b"\n") == 1


class TestReading:
    def test_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"1234")
        with open_input(tmp_path / "a") as file:
            file.seek(2)
            assert file.read() == b"34"
        assert file.closed

    @pytest.mark.parametrize("size", [0, 5, (8 << 20) + 1])
    def test_standard_input_can_seek(self, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        monkeypatch.setattr(sys, "stdin", Stream(io.BytesIO(data)))
        with open_input("-") as file:
            assert file.seek(0, os.SEEK_END) == size
            file.seek(0)
            assert file.read() == data

    @posix
    def test_named_pipe_can_seek(self, tmp_path: Path) -> None:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        writer = threading.Thread(target=path.write_bytes, args=(b"1234",))
        writer.start()
        with open_input(path) as file:
            assert file.read() == b"1234"
            file.seek(1)
            assert file.read() == b"234"
        writer.join()

    def test_refusals(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        cases = {
            tmp_path / "none": "no such file",
            tmp_path: "is a folder",
            tmp_path / "file" / "x": "a part of the path is a file",
            tmp_path / ("n" * 300): "name is too long",
            "a\0b": "not a valid name",
        }
        if os.path.exists("/dev/zero"):
            cases[Path("/dev/zero")] = "is a device"
        for source, said in cases.items():
            with pytest.raises(AudioError, match=said) as error, open_input(source, error=AudioError):
                pass
            one_line(error)
        monkeypatch.setattr(sys, "stdin", Stream(Terminal()))
        with pytest.raises(SnacError, match="is a terminal"), open_input("-"):
            pass

    def test_unreadable_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a").touch()

        def refuse(*_: Any, **__: Any) -> None:
            raise PermissionError(errno.EACCES, "denied")

        monkeypatch.setattr("builtins.open", refuse)
        with pytest.raises(AudioError) as error, open_input(tmp_path / "a", error=AudioError):
            pass
        monkeypatch.undo()
        assert (
            one_line(error) == f"{tmp_path / 'a'} cannot be read: permission denied: check the access rights"
        )

    def test_errors_of_the_reader_pass_through(self, tmp_path: Path) -> None:
        (tmp_path / "a").touch()
        with pytest.raises(OSError, match="mine"), open_input(tmp_path / "a"):
            raise OSError("mine")


def test_messages_stay_on_one_line() -> None:
    assert shown("a\nb\x1b[31m\udcff.wav") == r"a\nb\x1b[31m\xff.wav"
    assert shown("-") == "standard input"
    assert shown("-", stdio="standard output") == "standard output"
    assert cause(OSError(errno.EIO, "Input/output\nerror")) == "Input/output error"
    assert cause(OSError("plain")) == "OSError"


def test_output_file_names_what_fails() -> None:
    class Broken:
        def write(self, *_: Any) -> int:
            raise OSError(errno.ENOSPC, "full")

        seek = tell = flush = close = write

    broken = OutputFile(Broken(), "that", seekable=True)  # type: ignore[arg-type]
    for action in (lambda: broken.write(b""), lambda: broken.seek(0), broken.flush, broken.close):
        with pytest.raises(OutputError, match="that cannot be written: no space"):
            action()


class TestWalking:
    @staticmethod
    def tree(root: Path, *files: str) -> Path:
        for name in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root

    def test_files_come_sorted_within_each_folder(self, tmp_path: Path) -> None:
        self.tree(tmp_path, "c.wav", "a.wav", "b/2.wav", "b/1.wav", "b/x/y.wav", "a.txt")
        found = list(walk(tmp_path, lambda name: name.endswith(".wav")))
        assert [below for _, below in found] == [
            "a.wav",
            os.path.join("b", "1.wav"),
            os.path.join("b", "2.wav"),
            os.path.join("b", "x", "y.wav"),
            "c.wav",
        ]
        assert all(path == os.path.join(tmp_path, below) for path, below in found)

    def test_hidden_files_and_folders_are_left_out(self, tmp_path: Path) -> None:
        self.tree(tmp_path, "a.wav", "._a.wav", ".trash/b.wav", "c/.d.wav")
        assert [below for _, below in walk(tmp_path, lambda name: True)] == ["a.wav"]

    @posix
    def test_links_to_folders_and_pipes_are_left_out_but_links_to_files_are_files(
        self, tmp_path: Path
    ) -> None:
        self.tree(tmp_path, "a/b.wav", "elsewhere.wav")
        (tmp_path / "a" / "up").symlink_to(tmp_path)
        (tmp_path / "a" / "c.wav").symlink_to(tmp_path / "elsewhere.wav")
        (tmp_path / "a" / "gone.wav").symlink_to(tmp_path / "nothing")
        os.mkfifo(tmp_path / "a" / "pipe.wav")
        told: list[tuple[str, OSError | None]] = []
        found = walk(tmp_path / "a", lambda name: True, skipped=lambda *what: told.append(what))
        assert [below for _, below in found] == ["b.wav", "c.wav", "gone.wav"]
        assert told == [(os.path.join(tmp_path, "a", "up"), None)]

    def test_a_folder_that_cannot_be_read_is_told_of(self, tmp_path: Path) -> None:
        told: list[tuple[str, OSError | None]] = []
        assert not list(walk(tmp_path / "no", lambda name: True, skipped=lambda *what: told.append(what)))
        assert [(path, type(error)) for path, error in told] == [
            (os.path.join(tmp_path, "no"), FileNotFoundError)
        ]

    def test_one_folder_may_be_avoided(self, tmp_path: Path) -> None:
        self.tree(tmp_path, "a/x.wav", "b/y.wav")
        assert [name for _, name in walk(tmp_path, lambda _: True, avoid=tmp_path / "b" / "..")] == []
        found = walk(tmp_path, lambda _: True, avoid=tmp_path / "b")
        assert [name for _, name in found] == [os.path.join("a", "x.wav")]


class TestReplacing:
    def test_an_error_leaves_the_former_file(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(b"before")
        with pytest.raises(KeyboardInterrupt):
            interrupted(replacing(tmp_path / "a"), KeyboardInterrupt)
        assert (tmp_path / "a").read_bytes() == b"before"
        assert names(tmp_path) == ["a"]

    @pytest.mark.parametrize("durable", [False, True])
    def test_the_new_file_takes_its_place(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
    ) -> None:
        synced: list[int] = []
        monkeypatch.setattr(files.os, "fsync", synced.append)
        (tmp_path / "a").write_bytes(b"before")
        with replacing(tmp_path / "a", durable=durable) as file:
            file.write(b"after")
        assert (tmp_path / "a").read_bytes() == b"after"
        assert len(synced) == durable
        assert names(tmp_path) == ["a"]

    def test_what_cannot_be_made_is_the_systems_error(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), replacing(tmp_path / "no" / "a"):
            pass


# Errors of other processes


def every_kind(of: type[SnacError]) -> set[type[SnacError]]:
    return {of}.union(*(every_kind(kind) for kind in of.__subclasses__()))


MADE_OF: dict[str, tuple[Any, ...]] = {
    "UnreachableModelError": ("name", "offline", Path("folder")),
    "BrokenDownloadError": ("name", "repository", "reset"),
    "ChangedModelError": ("name", Path("path"), "differs"),
    "ParameterError": ("levels", "9", "give less"),
    "LevelsError": (9, 3),
    "WeightsMismatchError": ("mini", "0" * 16, "other", "1" * 16),
    "StreamDamagedError": ("is damaged", 1, 0),
    "RaggedLevelsError": ("are ragged", 1, 3, 4),
    "TokenRangeError": ("has a token of 9", 9, 4, 0),
}


def test_errors_arrive_from_another_process_as_they_were() -> None:
    import snaccli.bench.peers
    import snaccli.cli.plan
    import snaccli.tokens  # noqa: F401 (errors of their own)

    kinds = every_kind(SnacError)
    assert {"LevelsError", "TokenFileError", "PeerError"} < {kind.__name__ for kind in kinds}
    for kind in kinds:
        error = kind(*MADE_OF.get(kind.__name__, ("is wrong",)))
        error.__notes__ = ["a note"]  # type: ignore[attr-defined]
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))
