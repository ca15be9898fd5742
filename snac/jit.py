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
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from snac.files import replacing

__all__ = ["Kernel", "Record", "available", "compiled", "inlined", "multiply_by", "observe", "part", "reason"]

Function = TypeVar("Function", bound=Callable[..., Any])
Observer = Callable[[str, "float | None"], None]

_DIGEST = 16
_UNUSED = ctypes.byref(ctypes.c_void_p())  # where an error would be described
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
    llvm = _loader()
    if llvm is None:
        return False
    with _lock:
        for kernel in kernels:
            if kernel.tried:
                continue
            paths = _paths(kernel, llvm)
            for code in filter(None, map(_read, paths)):
                with suppress(Exception):  # an object that another version wrote: compile it anew
                    kernel.entry = _linked(code, llvm, llvm.machine())
                    break
            else:
                try:
                    code = _compile(kernel, llvm)
                    kernel.entry = _linked(code, llvm, llvm.machine())
                    any(_write(path, code) for path in paths)  # the first place that can be written to
                except Exception as error:
                    # numba refuses versions of Python and NumPy that it does not know, in many ways.
                    _fail(f"numba cannot compile {kernel.name} ({_words(error)})")
                    _log.debug("%s cannot be compiled", kernel.name, exc_info=error)
            kernel.tried = True
    return all(kernel.entry is not None for kernel in kernels)


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
        kinds: of its parameters, see :func:`compiled`.
        options: of numba.
        tried: whether it was loaded, or could not be.
        entry: the compiled code, once it is loaded; None without.
    """

    def __init__(
        self, function: Callable[..., Any], kinds: Sequence[Kind], fastmath: frozenset[str] = frozenset()
    ) -> None:
        self.python = function
        self.name = f"{function.__module__}.{function.__name__}"
        self.kinds = tuple(kinds)
        self.options: dict[str, Any] = {"fastmath": set(fastmath), "error_model": "numpy"}
        self.tried = False
        self.entry: Callable[..., int] | None = None
        self._checks = [_Check.of(kind) for kind in _flattened(self.kinds)]
        self._pack = struct.Struct("=" + "".join(check.format for check in self._checks)).pack
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> int:
        """Calls the kernel.

        The compiled code takes words of 64 bits: numbers, and addresses of arrays. An array's address is that
        of NumPy's object, which tells where its values lie and its shape: asking NumPy in Python for the same
        takes longer than many a kernel runs.

        Raises:
            TypeError: an argument is not of its kind.
            RuntimeError: the compiled code raised an error, of which kind it does not say.
        """
        if not self.tried:
            available(self)
        if self.entry is None:
            return cast(int, self.python(*arguments))
        flat: Sequence[Any] = arguments
        if len(self.kinds) != len(self._checks):
            flat = [
                value
                for kind, argument in zip(self.kinds, arguments, strict=True)
                for value in (argument if isinstance(kind, Record) else (argument,))
            ]
        values = []
        for check, value in zip(self._checks, flat, strict=True):
            if check.dtype is None:
                values.append(value)
                continue
            if value.dtype != check.dtype or value.ndim != check.ndim or not value.flags.c_contiguous:
                found = f"{value.dtype.str}{value.shape}, strides {value.strides}"
                raise TypeError(f"{self.name}: wanted a C-contiguous array {check.kind}, got {found}")
            values.append(id(value))
        result = ctypes.c_int64()
        if self.entry(ctypes.byref(result), _UNUSED, self._pack(*values)):
            raise RuntimeError(f"the kernel {self.name} failed")
        return result.value


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


def _flattened(kinds: Sequence[Kind]) -> Iterator[str]:
    for kind in kinds:
        if isinstance(kind, Record):
            yield from kind.fields.values()
        else:
            yield kind


# Loading


class _Llvm(NamedTuple):
    """LLVM, and the processor to compile for."""

    binding: Any  # llvmlite's module
    version: str
    processor: str
    features: str

    def machine(self) -> Any:
        """A target machine; what is made with it owns it."""
        target = self.binding.Target.from_triple(self.binding.get_process_triple())
        reloc = "static" if target.name.startswith("x86") else "default"
        return target.create_target_machine(
            cpu=self.processor,
            features=self.features,
            opt=3,
            reloc=reloc,
            codemodel="jitdefault",
            jit=True,
        )


@cache
def _loader() -> _Llvm | None:
    """What loads kernels; None where they cannot be had."""
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        _fail("NUMBA_DISABLE_JIT is set")
        return None
    try:
        llvm = importlib.import_module("llvmlite.binding")
        with suppress(RuntimeError):  # newer versions do this by themselves and say so
            llvm.initialize()
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        features = ""
        with suppress(RuntimeError):  # not known for this kind of processor
            features = llvm.get_host_cpu_features().flatten()
        version = importlib.import_module("llvmlite").__version__
        return _Llvm(llvm, version, llvm.get_host_cpu_name(), features)
    except Exception as error:  # a broken installation fails in many ways
        _fail(f"llvmlite cannot be imported ({_words(error)})")
        return None


def _fail(why: str) -> None:
    """Keeps the first reason."""
    global _failure
    _failure = _failure or why


def _words(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return "; ".join(lines[:2]) or type(error).__name__


def _linked(code: bytes, llvm: _Llvm, machine: Any) -> Callable[..., int]:
    """Machine code of one kernel to what calls it."""
    engine = llvm.binding.create_mcjit_compiler(llvm.binding.parse_assembly(""), machine)
    engine.add_object_file(llvm.binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address("kernel")
    if not address:
        raise ValueError("no kernel in this object")
    entry = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(address)
    setattr(entry, "_owner", engine)  # noqa: B010 - the code lives as long as this does
    return entry


# The cache


def _paths(kernel: Kernel, llvm: _Llvm) -> list[Path]:
    """The files where a kernel's code may lie, first choice first."""
    function, scope = kernel.python, kernel.python.__globals__
    told = kernel.name, kernel.kinds, sorted(kernel.options["fastmath"]), llvm.version, llvm[2:]
    digest = hashlib.blake2b(repr(told).encode(), digest_size=12)
    modules = {function.__module__, *(each.__module__ for each in scope.values() if hasattr(each, _PARTS))}
    sources = {getattr(sys.modules[name], "__file__", None) or "" for name in modules}
    for source in sorted({str(Path(__file__).with_name("_compiler.py")), *sources}):
        with suppress(OSError):
            digest.update(Path(source).read_bytes())
    folders = []
    own = getattr(sys.modules[function.__module__], "__file__", None)
    if own:
        folders.append(Path(own).parent / "__pycache__")
    home = os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else os.environ.get("XDG_CACHE_HOME")
    with suppress(RuntimeError):  # no home folder
        mac = sys.platform == "darwin"
        cache_folder = Path(home) if home else Path.home() / ("Library/Caches" if mac else ".cache")
        folders.append(cache_folder / "snac")
    return [folder / f"{kernel.name}-{digest.hexdigest()}.kernel" for folder in folders]


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
        with replacing(path) as file:  # as readable as other files: one user may compile for all
            file.write(hashlib.blake2b(code, digest_size=_DIGEST).digest() + code)
    except OSError:
        return False
    return True


# Compiling


def _compile(kernel: Kernel, llvm: _Llvm) -> bytes:
    """The machine code of a kernel."""
    if _observer is not None:
        _observer(kernel.name, None)
    started = time.perf_counter()
    from snac import _compiler  # imports numba

    module = _compiler.optimised(kernel.python, kernel.kinds, kernel.options, llvm.machine())
    code = cast(bytes, llvm.machine().emit_object(module))
    if _observer is not None:
        _observer(kernel.name, time.perf_counter() - started)
    return code
