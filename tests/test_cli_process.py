"""What the program does to its own process, and that it does so only where the process is its own."""

from __future__ import annotations

import io
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from snaccli.cli import process
from snaccli.cli.app import run
from snaccli.cli.ui.console import Console
from tests import pcm_codec


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The calls of the C library, none of which is made; the environment asks for nothing."""
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(process, "_mallopt", lambda *call: calls.append(call))
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    for name in ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return calls


def console(*, own: bool) -> Console:
    made = Console(io.StringIO(), io.StringIO(), {})
    made.owns_process = own
    return made


@pytest.mark.skipif(sys.platform != "linux", reason="heaps of glibc, on another system")
def test_the_user_decides_on_heaps(asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    process.one_heap()
    assert asked == [(-8, 1)]
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    process.one_heap()
    assert len(asked) == 1


def test_the_c_library_takes_what_it_is_asked() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from snaccli.cli import process; process.one_heap(); print('done')"],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


def test_the_user_decides_on_threads(asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    process.one_thread_for_products()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    assert os.environ["VECLIB_MAXIMUM_THREADS"] == "1"


@pytest.mark.parametrize("own", [True, False])
def test_a_bench_tunes_its_own_process_only(
    own: bool, tmp_path: Path, asked: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pcm_codec.install(monkeypatch)
    path = pcm_codec.write(tmp_path / "in.wav", pcm_codec.tone(0.2))
    assert run(["bench", str(path), "-q"], console(own=own)) == 0
    assert asked == ([(-8, 1)] if own and sys.platform == "linux" else [])
    assert os.environ.get("OPENBLAS_NUM_THREADS") == ("1" if own else None)


QUIET = """
import os
from snaccli.cli import process
from snaccli.cli.ui.console import Console
console = Console()
console.owns_process, console.debug = True, {debug}
console.note("before")
process.tune(console)
os.write(2, b"what a library prints\\n")
console.note("after")
"""


@pytest.mark.parametrize(
    ("debug", "lines"),
    [(False, ["before", "after"]), (True, ["before", "what a library prints", "after"])],
)
def test_what_libraries_print_is_dropped_but_for_debug(debug: bool, lines: list[str]) -> None:
    script = QUIET.format(debug=debug)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stdout, done.stderr.splitlines()) == ("", lines)


def test_a_closed_standard_error_is_nothing_to_keep_clean() -> None:
    script = QUIET.format(debug=False).replace('os.write(2, b"what a library prints\\n")', "print('done')")
    command = [sys.executable, "-c", f"import os; os.close(2)\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "done\n"


KERNEL = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
from snaccli.cli import process
from snaccli.cli.ui.console import Console
console = Console()
console.owns_process = True
process.tune(console)
import doubling
values = np.ones(3, np.float32)
doubling.double(values)
doubling.treble(values)
print(values[0])
"""
KERNELS = """
from snac.jit import compiled

@compiled("f4[:]")
def double(values) -> int:
    for i in range(len(values)):
        values[i] *= 2
    return 0

@compiled("f4[:]")
def treble(values) -> int:
    for i in range(len(values)):
        values[i] *= 3
    return 0
"""


def test_the_first_run_on_a_machine_says_what_it_prepares(tmp_path: Path) -> None:
    (tmp_path / "doubling.py").write_text(KERNELS)
    command = [sys.executable, "-c", KERNEL.format(folder=str(tmp_path))]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment.pop("NUMBA_DISABLE_JIT", None)
    first, second = (
        subprocess.run(command, capture_output=True, text=True, env=environment) for _ in range(2)
    )
    assert (first.stdout, second.stdout) == ("6.0\n", "6.0\n")
    assert first.stderr.count("\n") == 1
    assert first.stderr.startswith("first run on this machine: compiling for its processor")
    assert second.stderr == ""


unix = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX, on Windows")

PROGRAM = """
import sys
{before}
from snaccli.__main__ import main
sys.argv = ["snac", "info", "x.snac"]
main()
"""


def ended(before: str) -> subprocess.CompletedProcess[str]:
    """The program, with `before` done to it."""
    command = [sys.executable, "-c", PROGRAM.format(before=before)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


RAISING = """
import atexit, os, signal, time
from snaccli.cli import app
def work():  # called where a command is found and called
    atexit.register(print, "cleaned up")
    os.kill(os.getpid(), signal.{name})
    time.sleep(60)
app.snac_command = work
"""


@unix
@pytest.mark.parametrize(
    ("name", "told"), [("SIGINT", "interrupted"), ("SIGTERM", "terminated"), ("SIGHUP", "terminated")]
)
def test_the_program_dies_of_the_signal_once_it_has_cleaned_up(name: str, told: str) -> None:
    done = ended(RAISING.format(name=name))
    assert (done.returncode, done.stdout) == (-getattr(signal, name), "cleaned up\n")
    assert done.stderr == f"snac: {told}\n"


@unix
def test_a_signal_that_is_ignored_stays_so() -> None:
    before = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    before += "from snaccli.cli import app; app.run = lambda *_: 128 + signal.SIGINT"
    assert ended(before).returncode == 130


WHILE_IMPORTING = """
import builtins, os, signal
import_ = builtins.__import__
def slow(name, *rest, **more):
    if name == "{name}":
        os.kill(os.getpid(), signal.SIGINT)
    return import_(name, *rest, **more)
builtins.__import__ = slow
"""


@unix
@pytest.mark.parametrize("name", ["typer", "snaccli.cli.app", "snaccli.cli.ui.console"])
def test_an_interrupt_while_the_program_is_imported_shows_no_traceback(name: str) -> None:
    done = ended(WHILE_IMPORTING.format(name=name))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


WAITING = """
import time
from snaccli.cli import app
from snaccli.__main__ import main
def work():
    print("begun", flush=True)
    time.sleep(60)
app.snac_command = work
main()
"""


@unix
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_ctrl_c_stops_the_loop_of_a_shell(tmp_path: Path) -> None:
    """At a terminal, where the interrupt goes to the shell and to the program."""
    import pty

    program = tmp_path / "waiting.py"
    program.write_text(WAITING)
    loop = f"for i in 1 2 3; do '{sys.executable}' '{program}'; echo went on; done; echo over"
    terminal, inner = pty.openpty()
    # A session of its own, whose terminal becomes the first that it opens.
    shell = f"exec 0<>'{os.ttyname(inner)}' >&0 2>&0; {loop}"
    with subprocess.Popen(["bash", "-c", shell], start_new_session=True) as child:
        heard = _heard(terminal, b"begun")
        os.close(inner)  # not before: a terminal that nobody has open yet reads as closed
        os.write(terminal, b"\x03")
        heard += _heard(terminal)
        os.close(terminal)
        assert child.wait(timeout=300) == -signal.SIGINT, heard
    assert heard.count(b"begun") == 1, heard
    assert b"interrupted" in heard
    assert b"went on" not in heard


def _heard(terminal: int, words: bytes | None = None) -> bytes:
    """What programs write to a terminal: up to some words, or until the last of them has ended."""
    heard = b""
    while words is None or words not in heard:
        ready, _, _ = select.select([terminal], [], [], 300)
        assert ready, f"nothing more after {heard!r}"
        try:
            more = os.read(terminal, 1000)
        except OSError:  # the terminal is closed when its last program has ended
            break
        if not more:
            break
        heard += more
    return heard


@unix
@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_closed_standard_stream_is_called_so(
    tmp_path: Path, user_environment: dict[str, str], tiny_model_folder: Path, recording: Path
) -> None:
    def shell(line: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-c", line]
        return subprocess.run(command, capture_output=True, text=True, env=user_environment, cwd=tmp_path)

    coded = ["encode", str(recording), "-m", str(tiny_model_folder), "-o", str(tmp_path / "a.snac")]
    assert run(coded, console(own=False)) == 0
    for line in ("snac encode - -o x.snac <&-", "snac verify - <&-", "snac stream -o x.wav <&-"):
        done = shell(line)
        assert done.returncode in (1, 2)
        assert re.search("standard input:? is closed: ", done.stderr), done.stderr
        assert done.stderr.count("\n") == 1
    for line in ("snac info a.snac >&-", "snac info --json a.snac >&-", "snac models list >&-"):
        done = shell(line)
        assert done.returncode == 1
        lost = "standard output is closed, and the result is lost: send it into a file or a pipe"
        assert done.stderr == f"snac: {lost}\n"
    assert shell("snac verify -q a.snac >&-").returncode == 0  # which has nothing to tell
