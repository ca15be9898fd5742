"""Compiled kernels: one policy for everything that numba compiles, in this package and in ``snaccli``.

A kernel is a Python function over C-contiguous NumPy arrays and numbers. numba compiles it once on a machine,
for the processor at hand; the machine code is kept in a file, and from then on the code is loaded by llvmlite
alone. Importing numba takes half a second and 90 MiB, llvmlite a tenth of that time, so a process that finds
its kernels in the cache never imports numba.

- Nothing is imported and nothing compiled before the first kernel is used.
- The cache lies in the ``__pycache__`` folder of the module that defines the kernel, or, where that cannot be
  written, in the user's cache folder; where neither can be written, each process compiles anew. The name of a
  file tells source, signature, options, llvmlite's version and the processor; its content carries a checksum,
  and a damaged file is removed and compiled anew.
- ``NUMBA_DISABLE_JIT=1`` switches all kernels off. So does a numba or llvmlite that cannot be imported, for
  whatever reason: then :func:`available` is False, :func:`reason` says why, and a kernel that is called
  all the same runs as the Python function that it is.
- A call releases the interpreter lock and uses one thread.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import logging
import os
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

__all__ = ["Kernel", "Record", "available", "compiled", "inlined", "multiply_by", "observe", "part", "reason"]

Function = TypeVar("Function", bound=Callable[..., Any])
Observer = Callable[[str, "float | None"], None]

_DIGEST = 16
_PARTS = "_snac_part"

_log = logging.getLogger(__name__)
_lock = threading.RLock()
_failure = ""  # why kernels cannot be had here, once that is known
_observer: Observer | None = None


@dataclass(frozen=True)
class Record:
    """The kind of a parameter that is a NamedTuple of arrays and numbers.

    Attributes:
        type: the class of the tuple.
        fields: the kind of each field, in the order of the class, as for :func:`compiled`.
    """

    type: type[tuple[Any, ...]]
    fields: Mapping[str, str]


Kind = str | Record


def compiled(*kinds: Kind, fastmath: frozenset[str] = frozenset()) -> Callable[[Callable[..., Any]], Kernel]:
    """Makes a function a kernel.

    Args:
        kinds: of the parameters: ``i8`` for whole numbers (and truth values), ``f8`` for floating-point ones,
            a dtype with its dimensions such as ``f4[:,:]`` for C-contiguous arrays, a :class:`Record`.
        fastmath: what LLVM may do to floating-point numbers, as numba names it.

    The function may return a whole number, if its annotation says so. It may call functions of its own module
    that are marked by :func:`part` or :func:`inlined`. It must neither allocate nor use Python objects.
    """

    def mark(function: Callable[..., Any]) -> Kernel:
        return Kernel(function, kinds, fastmath)

    return mark


def part(function: Function) -> Function:
    """Marks a function as one that kernels of its module call."""
    setattr(function, _PARTS, "part")
    return function


def inlined(function: Function) -> Function:
    """Marks a function as one whose code is put where kernels of its module call it."""
    setattr(function, _PARTS, "inlined")
    return function


def multiply_by(routine: int, a: Any, b: Any, out: Any, add: bool) -> None:
    """Matrix product within kernels: ``out`` becomes, or is increased by, ``a @ b``, all of float32.

    Args:
        routine: address of a ``cblas_sgemm`` whose integers have 64 bits, or, negative, 32 bits.
        a: (M, K).
        b: (K, N).
        out: (M, N).
        add: whether to add to what is there.
    """
    if add:
        out += a @ b
    else:
        out[:] = a @ b


setattr(multiply_by, _PARTS, "product")


def available(*kernels: Kernel) -> bool:
    """Whether kernels run compiled here. Loads the given ones, compiling those that are not in the cache."""
    return _loader() is not None and all(kernel.ready() for kernel in kernels)


def reason() -> str:
    """Why :func:`available` was False, in a few words; empty if it was not."""
    return _failure


def observe(observer: Observer | None) -> None:
    """Has ``observer(name, None)`` called before a kernel is compiled, ``observer(name, seconds)`` after it.

    For programs that tell their users why the first run on a machine takes longer. None observes no more.
    """
    global _observer
    _observer = observer


class Kernel:
    """A function that runs compiled where that is possible.

    Attributes:
        python: the function itself.
        name: its module and name.
    """

    def __init__(
        self, function: Callable[..., Any], kinds: Sequence[Kind], fastmath: frozenset[str] = frozenset()
    ) -> None:
        self.python = function
        self.name = f"{function.__module__}.{function.__name__}"
        self.kinds = tuple(kinds)
        self.options: dict[str, Any] = {"fastmath": set(fastmath), "error_model": "numpy"}
        self._flat = list(_flattened(self.kinds))
        self._checks = [_Check.of(kind) for kind in self._flat]
        self._pack = struct.Struct("=" + "".join(check.format for check in self._checks)).pack
        self._call: Callable[[bytes], int] | None = None
        self._tried = False
        self.__doc__ = function.__doc__

    def ready(self) -> bool:
        """Whether it runs compiled; loads it or compiles it if need be."""
        if not self._tried:
            with _lock:
                if not self._tried:
                    self._call = _loaded(self)
                    self._tried = True
        return self._call is not None

    def __call__(self, *arguments: Any) -> int:
        """Calls the kernel.

        Raises:
            TypeError: an argument is not of its kind.
            RuntimeError: the compiled code raised an error, of which kind it does not say.
        """
        if not self._tried:
            self.ready()
        if self._call is None:
            return cast(int, self.python(*arguments))
        return self._call(self.words(arguments))

    def words(self, arguments: Sequence[Any]) -> bytes:
        """The arguments as the compiled code takes them, of 64 bits each: numbers, and addresses of arrays.

        An array's address is that of NumPy's object, which tells where its values lie and its shape: asking
        NumPy in Python for the same takes longer than many a kernel runs.
        """
        if len(self.kinds) != len(self._checks):
            arguments = [
                value
                for kind, argument in zip(self.kinds, arguments, strict=True)
                for value in (argument if isinstance(kind, Record) else (argument,))
            ]
        values = []
        for check, argument in zip(self._checks, arguments, strict=True):
            if check.dtype is not None:
                if (
                    argument.dtype != check.dtype
                    or argument.ndim != check.ndim
                    or not argument.flags.c_contiguous
                ):
                    raise TypeError(
                        f"{self.name}: wanted a C-contiguous array {check.kind}, got {_kind(argument)}"
                    )
                argument = id(argument)
            values.append(argument)
        return self._pack(*values)


@dataclass(frozen=True)
class _Check:
    """What an argument must be, and how it is packed."""

    kind: str
    dtype: np.dtype[Any] | None
    ndim: int
    format: str

    @classmethod
    def of(cls, kind: str) -> _Check:
        base, bracket, dimensions = kind.partition("[")
        if not bracket:
            return cls(kind, None, 0, {"i8": "q", "f8": "d"}[kind])
        return cls(kind, np.dtype(base), dimensions.count(":"), "q")


def _kind(argument: np.ndarray) -> str:
    return f"{argument.dtype.str}{argument.shape}, strides {argument.strides}"


def _flattened(kinds: Sequence[Kind]) -> Iterator[str]:
    for kind in kinds:
        if isinstance(kind, Record):
            yield from kind.fields.values()
        else:
            yield kind


# Loading


@cache
def _loader() -> Any:
    """llvmlite's binding; None where kernels cannot be had."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return _fail("NUMBA_DISABLE_JIT is set")
    try:
        llvm = importlib.import_module("llvmlite.binding")
        with suppress(RuntimeError):  # newer versions do this by themselves and say so
            llvm.initialize()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
    except Exception as error:  # a broken installation fails in many ways
        return _fail(f"llvmlite cannot be imported ({_words(error)})")
    return llvm


def _fail(why: str) -> Any:
    """None, after keeping the first reason."""
    global _failure
    _failure = _failure or why
    return None


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:2]) or type(error).__name__


def _loaded(kernel: Kernel) -> Callable[[bytes], int] | None:
    """The kernel as a function of its packed arguments; None where it cannot be had."""
    if _loader() is None:
        return None
    key = _key(kernel)
    folders = _folders(kernel)
    for folder in folders:
        code = _read(folder / _file(kernel, key))
        if code is not None:
            with suppress(Exception):  # an object that another version wrote: compile it anew
                return _function(code)
    try:
        code = _compile(kernel)
        function = _function(code)
    except (
        Exception
    ) as error:  # numba refuses versions of Python and NumPy that it does not know, in many ways
        _fail(f"numba cannot compile {kernel.name} ({_words(error)})")
        _log.debug("%s cannot be compiled", kernel.name, exc_info=error)
        return None
    for folder in folders:
        if _write(folder / _file(kernel, key), code):
            break
    return function


def _function(code: bytes) -> Callable[[bytes], int]:
    """Machine code of one kernel to what calls it."""
    llvm = _loader()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address("kernel")
    if not address:
        raise ValueError("no kernel in this object")
    kept = engine  # owns the code
    entry = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(address)
    unused = ctypes.byref(ctypes.c_void_p())

    def call(words: bytes) -> int:
        result = ctypes.c_int64()
        if entry(ctypes.byref(result), unused, words):
            raise RuntimeError(f"a kernel failed within {kept.name}")
        return result.value

    return call


def _machine() -> Any:
    """A target machine for this processor; its engine owns it."""
    llvm = _loader()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    cpu, features = _processor()
    reloc = "static" if target.name.startswith("x86") else "default"
    return target.create_target_machine(
        cpu=cpu, features=features, opt=3, reloc=reloc, codemodel="jitdefault", jit=True
    )


@cache
def _processor() -> tuple[str, str]:
    llvm = _loader()
    try:
        features = llvm.get_host_cpu_features().flatten()
    except RuntimeError:  # not known for this kind of processor
        features = ""
    return llvm.get_host_cpu_name(), features


# The cache


@cache
def _source(path: str) -> bytes:
    with suppress(OSError):
        return Path(path).read_bytes()
    return b""


def _key(kernel: Kernel) -> str:
    version = importlib.import_module("llvmlite").__version__
    told = (kernel.name, kernel.kinds, sorted(kernel.options["fastmath"]), version, _processor())
    digest = hashlib.blake2b(repr(told).encode(), digest_size=12)
    for path in sorted({str(Path(__file__).with_name("_compiler.py")), *_sources(kernel.python)}):
        digest.update(_source(path))
    return digest.hexdigest()


def _sources(function: Callable[..., Any]) -> Iterator[str]:
    """The files of a kernel and of the parts that its module has from elsewhere."""
    scope = function.__globals__
    for name in {function.__module__, *(each.__module__ for each in scope.values() if hasattr(each, _PARTS))}:
        yield getattr(sys.modules[name], "__file__", None) or ""


def _file(kernel: Kernel, key: str) -> str:
    return f"{kernel.name}-{key}.kernel"


def _folders(kernel: Kernel) -> list[Path]:
    """Where the kernel's code may lie, first choice first."""
    module = sys.modules[kernel.python.__module__]
    folders = []
    if getattr(module, "__file__", None):
        folders.append(Path(str(module.__file__)).parent / "__pycache__")
    home = os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):  # no home folder
        mac = sys.platform == "darwin"
        folders.append(
            (Path(home) if home else Path.home() / ("Library/Caches" if mac else ".cache")) / "snac"
        )
    return folders


def _read(path: Path) -> bytes | None:
    """A kernel's code; None if there is none. Removes a damaged file."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, code = data[:_DIGEST], data[_DIGEST:]
    if code and hashlib.blake2b(code, digest_size=_DIGEST).digest() == digest:
        return code
    with suppress(OSError):
        path.unlink()
    return None


def _write(path: Path, code: bytes) -> bool:
    """Keeps a kernel's code, whole or not at all; False where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".kernel-")
    except OSError:
        return False
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(hashlib.blake2b(code, digest_size=_DIGEST).digest() + code)
        os.replace(name, path)
    except OSError:
        with suppress(OSError):
            os.unlink(name)
        return False
    return True


# Compiling


def _compile(kernel: Kernel) -> bytes:
    """The machine code of a kernel."""
    if _observer is not None:
        _observer(kernel.name, None)
    started = time.perf_counter()
    from snac import _compiler  # imports numba

    llvm = _loader()
    module = llvm.parse_assembly(_compiler.assembly(kernel.python, kernel.kinds, kernel.options))
    module.verify()
    code = cast(bytes, _machine().emit_object(module))
    if _observer is not None:
        _observer(kernel.name, time.perf_counter() - started)
    return code
