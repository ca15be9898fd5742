"""A kernel of ``snac.jit`` to LLVM's module, by numba. Importing this imports numba.

The entry of a kernel takes one address, of 64-bit words: for an array the address of NumPy's object, for a
number its value. numba compiles a small function, written here, that unpacks them and calls the kernel.
"""

from __future__ import annotations

import itertools
import re
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from llvmlite import binding, ir
from numba.core import cgutils, codegen, registry
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic
from numba.np import arrayobj

from snac.jit import Kind, Record

_NUMBA: Any = numba  # its types, where it has some, do not cover its options
_ARRAYS: Any = arrayobj
_UTILITIES: Any = cgutils
_TYPES: Any = numba.types

_MARK = "_snac_part"
_BARE = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}


_HEADER = object.__basicsize__
"""Bytes before NumPy's own part of an array: the address of its values, the number of dimensions, the address
of its shape. NumPy's macros read it so in every version since 1.7."""


@intrinsic(prefer_literal=True)
def _number(typing_context: Any, words: Any, place: Any, dtype: Any) -> Any:
    """The number in a word: ``words`` is the address of them all, ``place`` a literal."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = _offset(builder, arguments[0], 8 * place.literal_value)
        return _load(builder, address, context.get_value_type(dtype.dtype))

    return dtype.dtype(words, place, dtype), code


@intrinsic(prefer_literal=True)
def _array(typing_context: Any, words: Any, place: Any, dtype: Any, ndim: Any) -> Any:
    """The C-contiguous array whose NumPy object a word points to."""
    kind = _TYPES.Array(dtype.dtype, ndim.literal_value, "C")

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = _load(builder, _offset(builder, arguments[0], 8 * place.literal_value), _INT64)
        data = _load(builder, _offset(builder, found, _HEADER), _INT64)
        dimensions = _load(builder, _offset(builder, found, _HEADER + 16), _INT64)
        shape = [_load(builder, _offset(builder, dimensions, 8 * axis), _INT64) for axis in range(kind.ndim)]
        itemsize = context.get_abi_sizeof(context.get_data_type(kind.dtype))
        strides = [_INT64(itemsize)]
        for extent in reversed(shape[1:]):
            strides.insert(0, builder.mul(strides[0], extent))
        array = _ARRAYS.make_array(kind)(context, builder)
        _ARRAYS.populate_array(
            array,
            data=builder.inttoptr(data, array.data.type),
            shape=_UTILITIES.pack_array(builder, shape),
            strides=_UTILITIES.pack_array(builder, strides),
            itemsize=_INT64(itemsize),
            meminfo=None,
        )
        return array._getvalue()

    return kind(words, place, dtype, ndim), code


@intrinsic
def _product(typing_context: Any, routine: Any, a: Any, b: Any, out: Any, add: Any) -> Any:
    """``snac.jit.multiply_by``: a call of a cblas_sgemm, row by row, nothing transposed."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, *matrices, added = arguments
        pairs = zip(signature.args[1:4], matrices, strict=True)
        made = [_ARRAYS.make_array(kind)(context, builder, value) for kind, value in pairs]
        (m, k), (_, n), _ = (_UTILITIES.unpack_tuple(builder, array.shape) for array in made)
        # From one row to the next, in values.
        rows = [_UTILITIES.unpack_tuple(builder, array.strides)[0] for array in made]
        rows = [builder.ashr(row, _INT64(2)) for row in rows]
        first, second, third = (array.data for array in made)
        beta = builder.select(builder.trunc(added, ir.IntType(1)), _FLOAT(1.0), _FLOAT(0.0))
        wide, negated = builder.icmp_signed(">", address, _INT64(0)), builder.neg(address)
        with builder.if_else(wide) as (then, otherwise):
            for branch, kind, at in ((then, _INT64, address), (otherwise, _INT32, negated)):
                with branch:
                    p, q, r, i, j, w = (
                        builder.trunc(x, kind) if kind is _INT32 else x for x in (m, n, k, *rows)
                    )
                    values = [_INT32(101), _INT32(111), _INT32(111), p, q, r, _FLOAT(1.0), first, i]
                    values += [second, j, beta, third, w]
                    called = ir.FunctionType(ir.VoidType(), [value.type for value in values])
                    builder.call(builder.inttoptr(at, called.as_pointer()), values)
        return context.get_dummy_value()

    return _TYPES.void(routine, a, b, out, add), code


_INT64, _INT32, _FLOAT = ir.IntType(64), ir.IntType(32), ir.FloatType()


def _offset(builder: Any, address: Any, offset: int) -> Any:
    return builder.add(address, _INT64(offset))


def _load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(builder.inttoptr(address, kind.as_pointer()))


_LIBRARY: Any = getattr(codegen, "JITCodeLibrary", object)
_CODEGEN: Any = getattr(codegen, "JITCPUCodegen", object)


class _Unoptimised(_LIBRARY):  # type: ignore[misc]
    """Code as numba writes it. Left alone, numba optimises each function by itself and once more with every
    one that calls it, and makes machine code of all of them, which takes more than half of its time."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        self._ensure_finalized()
        return 0


class _Writer(_CODEGEN):  # type: ignore[misc]
    _library_class = _Unoptimised

    def set_env(self, env_name: str, env: Any) -> None:
        pass


@contextmanager
def _unoptimised() -> Iterator[None]:
    """Has numba only write its code. Nobody else in this process compiles meanwhile."""
    context = registry.cpu_target.target_context
    with global_compiler_lock:
        kept = context._internal_codegen, context.cached_internal_func
        context._internal_codegen, context.cached_internal_func = _Writer("snac"), {}
        try:
            yield
        finally:
            context._internal_codegen, context.cached_internal_func = kept


def optimised(
    function: Callable[..., Any], kinds: Sequence[Kind], options: dict[str, Any], machine: Any
) -> Any:
    """A kernel as a module of LLVM: one function ``kernel``, and what it calls.

    ``kernel`` has numba's calling convention: a status of 32 bits from three addresses, of the result (64
    bits), of an error (which kernels do not raise), and of the words.

    Args:
        function: the kernel.
        kinds: of its parameters, see ``snac.jit.compiled``.
        options: of numba.
        machine: LLVM's target machine.

    Raises:
        ValueError: the kernel needs Python at run time: it allocates, raises or uses objects.
    """
    try:
        with _unoptimised():
            text = _assembly(function, kinds, options)
    except Exception:  # the kernel is at fault, or this numba is not made as is thought here
        _made.clear()
        text = _assembly(function, kinds, options)
    module = binding.parse_assembly(text)
    module.verify()
    tuning = binding.PipelineTuningOptions(3)
    tuning.loop_vectorization = tuning.slp_vectorization = True
    passes = binding.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    return module


def _assembly(function: Callable[..., Any], kinds: Sequence[Kind], options: dict[str, Any]) -> str:
    """LLVM's assembly of a kernel."""
    source, names = _entry(kinds, function.__annotations__.get("return") not in (None, "None"))
    names["function"] = _for_numba(function, options)
    exec(compile(source, f"<entry of {function.__name__}>", "exec"), names)
    entry = _NUMBA.njit(**_BARE)(names["entry"])
    entry.compile((_TYPES.int64,))
    (result,) = entry.overloads.values()
    return _alone(result.library.get_llvm_str(), result.fndesc.mangled_name)


_made: dict[tuple[Callable[..., Any], str], Any] = {}  # what kernels share is compiled once a process


def _for_numba(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    """A function for numba, its calls of other parts replaced by calls of their compiled forms."""
    if getattr(function, _MARK, "") == "product":
        return _product
    key = function, repr(sorted(options.items(), key=str))
    if key not in _made:
        scope = dict(getattr(function, "__globals__", {}))
        for name in function.__code__.co_names:
            if getattr(scope.get(name), _MARK, None):
                scope[name] = _for_numba(scope[name], options)
        copy = types.FunctionType(
            function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
        )
        inline = {"forceinline": True} if getattr(function, _MARK, "") == "inlined" else {}
        _made[key] = _NUMBA.njit(**options, **_BARE, **inline)(copy)
    return _made[key]


def _entry(kinds: Sequence[Kind], returns: bool) -> tuple[str, dict[str, Any]]:
    """The source of the function that unpacks a kernel's words, and the names that it uses."""
    names: dict[str, Any] = {"array": _array, "number": _number, "i8": np.int64}
    count = itertools.count()

    def value(kind: str) -> str:
        base, bracket, dimensions = kind.partition("[")
        names[base] = np.dtype(base).type
        if bracket:
            return f"array(words, {next(count)}, {base}, {dimensions.count(':')})"
        return f"number(words, {next(count)}, {base})"

    arguments = []
    for number, kind in enumerate(kinds):
        if isinstance(kind, Record):
            names[f"Record{number}"] = kind.type
            fields = "".join(f"{value(field)}, " for field in kind.fields.values())
            arguments.append(f"Record{number}({fields})")
        else:
            arguments.append(value(kind))
    call = f"function({', '.join(arguments)})"
    lines = ["def entry(words):", f"    return i8({call})" if returns else f"    {call}\n    return i8(0)"]
    return "\n".join(lines), names


def _alone(assembly: str, entry: str) -> str:
    """A module's text reduced to one function, which gets the name ``kernel``, and what it uses.

    Raises:
        ValueError: that is something which only numba's own runtime has.
    """
    head, defined = _divided(assembly)
    used, waiting = {entry}, [entry]
    while waiting:
        for name in _NAME.findall(defined[waiting.pop()]):
            if name in defined and name not in used:
                used.add(name)
                waiting.append(name)
    missing = [name for name in used if defined[name].startswith("declare") and not _provided(name)]
    if missing:
        raise ValueError(f"the kernel needs {', '.join(sorted(missing))} at run time")
    text = "\n".join(text for name, text in defined.items() if name in used)
    return "\n".join([*head, text]).replace(f"@{entry}(", "@kernel(")


def _provided(name: str) -> bool:
    return name.startswith("llvm.") or name in _PROVIDED


_PROVIDED = frozenset({"memset", "memcpy", "memmove", "sqrt", "sqrtf"})  # of C, in every process
_NAME = re.compile(r"""@("[^"]*"|[-\w$.]+)""")


def _divided(assembly: str) -> tuple[list[str], dict[str, str]]:
    """The lines of a module that define no global name, and the text that defines each."""
    head: list[str] = []
    defined: dict[str, str] = {}
    lines = iter(assembly.splitlines())
    for line in lines:
        if line.startswith("define"):
            body = [line, *itertools.takewhile(lambda text: text != "}", lines), "}"]
            defined[_NAME.findall(line)[0]] = "\n".join(body)
        elif line.startswith(("declare", "@")):
            defined[_NAME.findall(line)[0]] = line
        else:
            head.append(line)
    return head, defined
