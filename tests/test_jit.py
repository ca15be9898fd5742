"""Compiled kernels: compiled once, kept, mended, and done without where they cannot be had."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from snac import jit

SOURCE = '''
from typing import NamedTuple

import numpy as np

from snac import jit


class Pair(NamedTuple):
    first: np.ndarray
    times: int


@jit.inlined
def square(x):
    return x * x


@jit.part
def total(values):
    result = 0
    for i in range(values.size):
        result += values[i]
    return result


@jit.compiled("f4[:,:]", "i8", "f8", jit.Record(Pair, {"first": "i4[:]", "times": "i8"}), "i8")
def kernel(x, n, share, pair, flag) -> int:
    """Everything that a kernel may take."""
    for r in range(x.shape[0]):
        for c in range(x.shape[1]):
            x[r, c] = square(x[r, c]) + np.float32(share)
    if flag:
        x[0, 0] = -1
    return total(pair.first) * pair.times + n


@jit.compiled("f4[:]")
def bad(x) -> None:
    """A kernel that allocates."""
    x[0] = np.zeros(3, np.float32).sum()
'''

USE = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import made
from snac import jit
x = np.arange(6, dtype="f4").reshape(2, 3)
events = []
jit.observe(lambda name, seconds: events.append((name, seconds is None)))
found = made.kernel(x, 5, 0.5, made.Pair(np.array([1, 2, 3], "i4"), 10), True)
assert found == 65, found
assert x.tolist() == [[-1, 1.5, 4.5], [9.5, 16.5, 25.5]], x
print(jit.available(made.kernel), "numba" in sys.modules, len(events), jit.reason())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "made.py").write_text(SOURCE, encoding="utf-8")
    return tmp_path


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("once")
    (folder / "made.py").write_text(SOURCE, encoding="utf-8")
    assert run(folder) == "True True 2"
    return folder


@pytest.fixture
def cached(once: Path, tmp_path: Path) -> Path:
    """A folder of its own with the module and its kernel, compiled."""
    return Path(shutil.copytree(once, tmp_path / "copy"))


def run(folder: Path, script: str = USE, **variables: str) -> str:
    child = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.strip()


def kept(folder: Path) -> list[Path]:
    return sorted(folder.rglob("made.kernel-*.kernel"))


def test_a_kernel_is_compiled_once_and_then_loaded_without_numba(cached: Path) -> None:
    assert [path.parent for path in kept(cached)] == [cached / "__pycache__"]
    assert run(cached) == "True False 0"


@pytest.mark.skipif(sys.platform == "win32", reason="no such rights")
def test_what_one_user_has_compiled_another_may_read(cached: Path) -> None:
    (path,) = kept(cached)
    assert path.stat().st_mode == (cached / "made.py").stat().st_mode


@pytest.mark.parametrize("length", [0, 40, -1])
def test_a_damaged_cache_is_made_anew(cached: Path, length: int) -> None:
    (path,) = kept(cached)
    whole = path.read_bytes()
    path.write_bytes(whole[:length] if length >= 0 else whole[:100] + b"?" + whole[101:])
    assert run(cached) == "True True 2"
    assert path.read_bytes() == whole
    assert run(cached) == "True False 0"


def test_a_changed_source_is_compiled_anew(cached: Path) -> None:
    (cached / "made.py").write_text(SOURCE.replace("* pair.times + n", "* pair.times + n + 1 - 1"))
    assert run(cached) == "True True 2"


def test_without_a_place_beside_the_module_the_cache_of_the_user_serves(folder: Path) -> None:
    (folder / "__pycache__").write_text("a file where the folder would be")
    assert run(folder, PYTHONDONTWRITEBYTECODE="1") == "True True 2"
    assert [path.parent for path in kept(folder)] == [folder / "cache" / "snac"]
    assert run(folder) == "True False 0"


def test_without_any_place_each_process_compiles(folder: Path) -> None:
    (folder / "__pycache__").write_text("a file")
    (folder / "cache").write_text("another")
    assert run(folder, PYTHONDONTWRITEBYTECODE="1") == "True True 2"
    assert kept(folder) == []


def test_switched_off_a_kernel_is_the_function_itself(cached: Path) -> None:
    assert run(cached, NUMBA_DISABLE_JIT="1") == "False False 0 NUMBA_DISABLE_JIT is set"


@pytest.mark.parametrize("module", ["numba", "llvmlite"])
def test_an_import_that_fails_in_any_way_is_survived(folder: Path, module: str) -> None:
    package = folder / module
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemError('this Python\\nis not known')")
    found = run(folder)
    assert found.startswith("False False ")
    assert found.endswith("(this Python; is not known)")


def test_what_numba_cannot_compile_is_said(folder: Path) -> None:
    script = USE.partition("x = np")[0] + "print(jit.available(made.bad), jit.reason())"
    found = run(folder, script)
    assert found.startswith("False numba cannot compile made.bad (")


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[jit.Kernel]:
    path = tmp_path_factory.mktemp("kernel") / "made.py"
    path.write_text(SOURCE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("made", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["made"] = module
    spec.loader.exec_module(module)
    yield module.kernel
    del sys.modules["made"]


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3)), np.zeros(6, "f4"), np.zeros((3, 2), "f4").T, np.zeros((2, 6), "f4")[:, ::2]]
)
def test_arrays_of_another_kind_are_refused(kernel: jit.Kernel, array: np.ndarray) -> None:
    pair = sys.modules["made"].Pair(np.array([1], "i4"), 1)
    with pytest.raises(TypeError, match=r"made\.kernel: wanted a C-contiguous array f4\[:,:\], got"):
        kernel(array, 1, 1.0, pair, False)
    if jit.available(kernel):
        assert kernel(np.zeros((2, 3), "f4"), 1, 1.0, pair, False) == 2


def test_other_functions_of_numba_are_compiled_as_ever(folder: Path) -> None:
    script = (
        USE
        + """
import numba
@numba.njit
def largest(values):
    if values.size == 0:
        raise ValueError("none")
    return max(values[0], values.max(), 2.5)
assert largest(x.ravel()) == x.max(), largest(x.ravel())
try:
    largest(x.ravel()[:0])
except ValueError as error:
    print(error)
"""
    )
    assert run(folder, script).splitlines()[-1] == "none"


@pytest.mark.parametrize("name", ["JITCodeLibrary", "JITCPUCodegen"])
def test_a_numba_that_is_made_otherwise_compiles_all_the_same(folder: Path, name: str) -> None:
    script = (
        f"from numba.core import codegen, registry\nregistry.cpu_target.target_context\ndel codegen.{name}\n"
    )
    assert run(folder, script + USE) == "True True 2"
