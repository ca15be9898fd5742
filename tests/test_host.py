"""A program that calls the library stays as it was: threads, descriptors, environment, memory settings.

The command line may tune its own process (tests/test_cli_process.py).
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

CALLS = """
import sys
import snaccli
from snaccli import decode_file, encode_file
recording, folder = sys.argv[1:3]
for model in sys.argv[3:]:
    encode_file(recording, f"{folder}/x.snac", model=model, overwrite=True, device="cpu", threads=2)
    decode_file(f"{folder}/x.snac", f"{folder}/x.wav", model=model, overwrite=True, device="cpu")
    samples, rate = snaccli.read(f"{folder}/x.snac", model=model)
    snaccli.write(f"{folder}/y.snac", samples, rate, model=model)
    assert len(samples) == 3 * rate
"""


def run(script: str, *arguments: str | Path) -> str:
    """The standard output of a fresh interpreter; it must end well and say nothing on standard error."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_coding_on_a_cpu_imports_no_torch(tmp_path: Path, recording: Path, tiny_model_folder: Path) -> None:
    """With the shipped model and with any safetensors file; nor the client of the Hub, nor a compiler."""
    unwanted = "('torch', 'huggingface_hub', 'safetensors', 'numba', 'typer', 'rich')"
    script = f"{CALLS}\nprint([name for name in {unwanted} if name in sys.modules])"
    (tmp_path / "tiny").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "tiny" / name).write_bytes((tiny_model_folder / name).read_bytes())
    run(script, recording, tmp_path, "mini", tmp_path / "tiny")  # the first run on a machine may compile
    assert run(script, recording, tmp_path, "mini", tmp_path / "tiny") == "[]\n"


def test_coding_without_torch_installed(tmp_path: Path, recording: Path) -> None:
    run(f"import sys\nsys.modules['torch'] = None\n{CALLS}", recording, tmp_path, "mini")


HOST = """
import os, signal, sys, threading
import numpy, torch
from threadpoolctl import threadpool_info, threadpool_limits

def blas():
    return sorted({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})

def state():
    descriptors = {name: os.fstat(int(name))[:3] for name in ("0", "1", "2")}
    signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return dict(os.environ), os.getcwd(), descriptors, signals, threading.enumerate(), blas()

import snaccli
threadpool_limits(3, user_api="blas")
before, inside = state(), []
meeting = threading.Barrier(3)

def host(number):
    torch.set_num_threads(2)
    meeting.wait()
    path = f"{sys.argv[2]}/{number}"
    for _ in range(number + 1):  # so that they overlap, and end one after the other
        snaccli.encode_file(sys.argv[1], f"{path}.snac", overwrite=True, device="cpu", threads=2)
        snaccli.decode_file(f"{path}.snac", f"{path}.wav", overwrite=True, device="cpu", threads=2)
    inside.append(torch.get_num_threads())

threads = [threading.Thread(target=host, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
after = state()
for was, is_now in zip(before, after):
    assert was == is_now, (was, is_now)
print(inside)
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX only")
def test_overlapping_calls_leave_the_host_as_it_was(tmp_path: Path, recording: Path) -> None:
    assert run(HOST, recording, tmp_path) == "[2, 2, 2]\n"


PROCESS_WIDE = {
    "chdir",
    "dup2",
    "mallopt",
    "malloc_trim",
    "putenv",
    "redirect_stderr",
    "redirect_stdout",
    "set_num_interop_threads",
    "set_num_threads",
    "setrlimit",
    "umask",
}
OWN = ("cli", "__main__.py", "training", "bench")  # programs, or what only they run


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted([*(ROOT / "snac").rglob("*.py"), *(ROOT / "snaccli").rglob("*.py")])
        if path.relative_to(ROOT).parts[1] not in OWN
    ],
    ids=lambda path: path.relative_to(ROOT).as_posix(),
)
def test_the_library_calls_nothing_that_changes_the_process(path: Path) -> None:
    """But for the number of OpenBLAS's threads, which the engine lowers during a call and puts back."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).split(".")
            if name[-1] in PROCESS_WIDE or name[0:2] == ["signal", "signal"]:
                found.add(name[-1])
        if isinstance(node, ast.Assign) and any("os.environ" in ast.unparse(t) for t in node.targets):
            found.add("os.environ")
    assert not found
