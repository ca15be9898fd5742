"""Who may import whom, read from the sources: imports in functions, relative ones and lazy ones included.

Data flows one way (audio, codes, coded bytes, file), and so do imports: a module imports only from stages
below its own. What knows no torch must not reach it by any path.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

STAGES: dict[str, int] = {
    "snaccli.errors": 0,
    "snaccli.progress": 0,
    "snaccli.workers": 1,
    "snaccli.io": 1,
    "snaccli.codes": 1,
    "snaccli.measures": 1,
    "snaccli.audio": 2,
    "snaccli.entropy": 2,
    "snaccli.container": 3,
    "snaccli.codec": 4,
    "snaccli.bench": 5,
    "snaccli.tokens": 5,
    "snaccli.training": 5,
    "snaccli": 6,  # the package's own names: they gather what programs import
    "snaccli.cli": 7,
    "snaccli.__main__": 8,
}
TORCH_FREE = (
    *("errors", "io", "progress", "workers", "codes", "audio", "entropy", "container"),
    *(f"training.data.{name}" for name in ("convert", "manifest", "prepare")),
)
TORCH = ("torch", "snac.nn.model", "safetensors.torch")
PUBLISHED = ("snac.snac", "snac.layers", "snac.vq", "snac.attention")
"""The published package's names of modules, for `snac.nn`."""
WITH_TORCH = (
    *("snac.nn", "snac.engine.torch_chain", "snaccli.training", "snaccli.cli.commands.train"),
    *PUBLISHED,
)
"""What may import torch whenever it is imported; everything else does so in functions, or not at all."""
NO_AUDIO = ("codes", "entropy", "container")


def under(module: str, package: str) -> bool:
    """True for the package itself and for everything in it."""
    return module == package or module.startswith(package + ".")


@dataclass
class Imports:
    """What one source file imports: full names of modules, or of names in modules."""

    at_import: set[str] = field(default_factory=set)  # runs whenever the module is imported
    later: set[str] = field(default_factory=set)  # in functions
    typing_only: set[str] = field(default_factory=set)  # under `if TYPE_CHECKING`

    @property
    def running(self) -> set[str]:
        return self.at_import | self.later

    @property
    def all(self) -> set[str]:
        return self.running | self.typing_only


class Reader(ast.NodeVisitor):
    """Collects the imports of one module, by when they run."""

    def __init__(self, package: str) -> None:
        self.package = package  # what a relative import starts from
        self.found = Imports()
        self.bound: set[str] = set()  # names that exist once the module is imported
        self.where = self.found.at_import

    def visit_in(self, nodes: list[ast.stmt], where: set[str]) -> None:
        before, self.where = self.where, where
        for node in nodes:
            self.visit(node)
        self.where = before

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if self.where is self.found.at_import:
            self.bound.add(node.name)
        self.visit_in(node.body, self.found.later if self.where is self.found.at_import else self.where)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.visit_FunctionDef(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if self.where is self.found.at_import:
            self.bound.add(node.name)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store) and self.where is self.found.at_import:
            self.bound.add(node.id)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            self.visit_in(node.body, self.found.typing_only)
            self.visit_in(node.orelse, self.where)
        else:
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.where.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            start = self.package.split(".")
            start = start[: len(start) - node.level + 1]
            base = ".".join([*start, base] if base else start)
        self.where.update(f"{base}.{alias.name}" for alias in node.names)
        if self.where is self.found.at_import:
            self.bound.update(alias.asname or alias.name for alias in node.names)

    def visit_Call(self, node: ast.Call) -> None:
        """``import_module("x")`` and ``import_module(".x", __package__)`` are imports too."""
        callee = ast.unparse(node.func).split(".")[-1]
        if callee in ("import_module", "__import__") and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                full = self.package + name.value if name.value.startswith(".") else name.value
                self.where.add(full)
        self.generic_visit(node)


@cache
def sources() -> dict[str, Path]:
    """Every module of both packages by its full name."""
    found = {}
    for package in ("snac", "snaccli"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def read_source(text: str, module: str, *, is_package: bool) -> Reader:
    reader = Reader(module if is_package else module.rpartition(".")[0])
    reader.visit(ast.parse(text))
    return reader


@cache
def read(module: str) -> Reader:
    path = sources()[module]
    return read_source(path.read_text(encoding="utf-8"), module, is_package=path.name == "__init__.py")


def module_of(name: str) -> str:
    """The longest part of a dotted name that is a module here; the name itself for others' modules."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        if ".".join(parts[:end]) in sources():
            return ".".join(parts[:end])
    return name


def next_steps(name: str) -> set[str]:
    """What importing ``name`` runs or may run later, one step on.

    A package on the way contributes what it runs at import; the module itself also what its functions
    import, unless only a name was taken from it that is there at import.
    """
    steps: set[str] = set()
    target = module_of(name)
    parts = target.split(".")
    for end in range(1, len(parts)):
        parent = ".".join(parts[:end])
        if parent in sources():
            steps |= read(parent).found.at_import
    if target in sources():
        reader = read(target)
        wanted = name[len(target) + 1 :]
        is_package = sources()[target].name == "__init__.py"
        bound_at_import = is_package and wanted in reader.bound
        steps |= reader.found.at_import if bound_at_import else reader.found.running
    return steps


def reached(name: str) -> dict[str, str]:
    """Everything that can come to be imported because of ``name``, each with who asked for it."""
    asked = {name: ""}
    waiting = [name]
    while waiting:
        here = waiting.pop()
        for step in sorted(next_steps(here)):
            if step not in asked:
                asked[step] = here
                waiting.append(step)
    return asked


def path_to(name: str, asked: dict[str, str]) -> str:
    way = [name]
    while asked[way[-1]]:
        way.append(asked[way[-1]])
    return " <- ".join(way)


def stage_of(name: str) -> str | None:
    """The stage that a name belongs to: the module in snaccli, or the package's own names."""
    if not under(name, "snaccli"):
        return None
    parts = name.split(".")
    for end in (3, 2):  # a module of a package may have a stage of its own
        if ".".join(parts[:end]) in STAGES:
            return ".".join(parts[:end])
    return ".".join(module_of(name).split(".")[:2])


def test_every_module_has_a_stage() -> None:
    stages = {stage_of(module) for module in sources() if under(module, "snaccli")}
    assert stages <= set(STAGES), f"give these a stage in this test: {sorted(map(str, stages - set(STAGES)))}"


def test_the_model_does_not_import_the_command_line_package() -> None:
    for module in sources():
        if under(module, "snac"):
            wrong = {name for name in read(module).found.all if under(name, "snaccli")}
            assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize("module", [m for m in sources() if under(m, "snaccli")])
def test_stages_import_only_from_below(module: str) -> None:
    own = stage_of(module)
    assert own is not None
    for name in sorted(read(module).found.all):
        other = stage_of(name)
        if other is None or other == own:
            continue
        assert STAGES[other] < STAGES[own], f"{module} ({own}) imports {name} of a stage not below it"


@pytest.mark.parametrize(
    "module", [m for m in sources() if any(under(m, f"snaccli.{stage}") for stage in TORCH_FREE)]
)
def test_what_knows_no_torch_cannot_reach_it(module: str) -> None:
    asked = reached(module)
    for name in asked:
        assert not any(under(name, torch) for torch in TORCH), path_to(name, asked)


@pytest.mark.parametrize("module", [m for m in sources() if not any(under(m, each) for each in WITH_TORCH)])
def test_torch_is_imported_in_functions_only(module: str) -> None:
    """So whatever a program imports of ours, it pays for torch only where it uses it."""
    for name in read(module).found.at_import:
        assert not any(under(name, each) for each in (*TORCH, *WITH_TORCH)), f"{module} imports {name}"


@pytest.mark.parametrize(
    "module", [m for m in sources() if any(under(m, f"snaccli.{stage}") for stage in NO_AUDIO)]
)
def test_what_knows_no_audio_cannot_reach_it(module: str) -> None:
    asked = reached(module)
    for name in asked:
        assert not under(name, "snaccli.audio"), path_to(name, asked)


def test_the_engine_and_checkpoints_know_no_modules_of_torch() -> None:
    """They come before `snac.nn`; only the chain of torch, and what converts a pickle, go further."""
    for module in sources():
        if under(module, "snac") and not any(under(module, each) for each in WITH_TORCH):
            wrong = {name for name in read(module).found.at_import if under(name, "snac.nn")}
            assert not wrong, f"{module} imports {wrong}"


def test_the_published_names_are_for_others() -> None:
    for module in sources():
        wrong = {name for name in read(module).found.all if any(under(name, each) for each in PUBLISHED)}
        assert not wrong, f"{module} imports {wrong}: take it from snac.nn"


def test_imports_are_absolute() -> None:
    for module, path in sources().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module}, line {node.lineno}"


def test_nobody_imports_the_command_line() -> None:
    for module in sources():
        if not under(module, "snaccli.cli") and module != "snaccli.__main__":
            wrong = {name for name in read(module).found.all if under(name, "snaccli.cli")}
            assert not wrong, f"{module} imports {wrong}"


@pytest.mark.parametrize(
    ("text", "where", "name"),
    [
        ("import torch", "at_import", "torch"),
        ("import torch.nn as nn", "at_import", "torch.nn"),
        ("from torch import nn", "at_import", "torch.nn"),
        ("def f():\n  from torch import nn", "later", "torch.nn"),
        ("class C:\n  def f(self):\n    import torch", "later", "torch"),
        ("class C:\n  import torch", "at_import", "torch"),
        ("try:\n  import torch\nexcept ImportError:\n  pass", "at_import", "torch"),
        ("if TYPE_CHECKING:\n  import torch", "typing_only", "torch"),
        ("from . import b", "at_import", "p.q.b"),
        ("from .b import c", "at_import", "p.q.b.c"),
        ("from .. import b", "at_import", "p.b"),
        ("from ..b import c", "at_import", "p.b.c"),
        ("async def f():\n  import torch", "later", "torch"),
        ("def f():\n  importlib.import_module('torch')", "later", "torch"),
        ("import_module('.b', __package__)", "at_import", "p.q.b"),
    ],
)
def test_the_reader_finds_imports_of_every_form(text: str, where: str, name: str) -> None:
    assert name in getattr(read_source(text, "p.q.a", is_package=False).found, where)


def test_relative_imports_of_a_package_start_at_itself() -> None:
    assert read_source("from .b import c", "p.q", is_package=True).found.at_import == {"p.q.b.c"}


def test_a_lazy_name_leads_to_what_it_loads() -> None:
    assert "snac.nn.model.SNAC" in reached("snac.SNAC")
    assert not any(under(name, "torch") for name in reached("snac.errors"))


def modules_after(statement: str) -> set[str]:
    """The names in sys.modules of a fresh interpreter after one statement."""
    script = f"import sys\n{statement}\nprint('\\n'.join(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import snac, snaccli",
        "import snac.config, snac.hub.locate, snac.hub.checkpoint, snac.engine, snac.noise, snac.jit",
        "import snaccli.codec, snaccli.tokens, snaccli.bench",
        "import snaccli.training.data.prepare",
        "import snaccli.container, snaccli.entropy, snaccli.audio, snaccli.codes, snaccli.io.files",
        "import snaccli.__main__, snaccli.cli.app, snaccli.cli.process",
    ],
)
def test_torch_stays_out_until_it_is_needed(statement: str) -> None:
    assert "torch" not in modules_after(statement)


CODING = """
import snaccli, sys
snaccli.encode_file(sys.argv[1], "a.snac", device="cpu", threads=1)
snaccli.decode_file("a.snac", "a.wav", device="cpu", threads=1)
samples, rate = snaccli.read("a.snac")
snaccli.write("b.snac", samples, rate)
from snaccli import bench
(result,) = bench.run(["a.wav"], ["mini"], "cpu", 1)
assert not result.failed, result.failed
assert "torch" not in sys.modules, "torch was imported"
"""


def test_coding_with_the_shipped_model_on_a_cpu_imports_no_torch(tmp_path: Path, recording: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CODING, str(recording)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
