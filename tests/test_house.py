"""What the project says of itself outside its code: versions, checks, and what a wheel holds."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOW = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")


def lowest_versions() -> dict[str, tuple[int, ...]]:
    """Lower bounds of pyproject.toml by package; the linters' are left out, as only the newest are run."""
    extras = PROJECT["optional-dependencies"]
    found = {}
    for requirement in [*PROJECT["dependencies"], *(each for extra in extras.values() for each in extra)]:
        if match := re.fullmatch(r"([\w-]+)>=([\d.]+)(;.*)?", requirement.replace(" ", "")):
            found[match[1]] = tuple(int(part) for part in match[2].split("."))
    return {name: version for name, version in found.items() if name not in ("mypy", "ruff")}


def pinned_versions() -> dict[str, tuple[int, ...]]:
    """What tests/constraints-lowest.txt pins."""
    lines = (ROOT / "tests" / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {name: tuple(int(part) for part in version.split(".")) for name, version in pins.items()}


def test_the_lowest_versions_tested_are_those_promised() -> None:
    pins, bounds = pinned_versions(), lowest_versions()
    assert set(pins) == set(bounds)
    for name, bound in bounds.items():
        assert pins[name][: len(bound)] == bound, f"{name}: pyproject.toml has {bound}, the pin {pins[name]}"
        assert not any(pins[name][len(bound) :]), f"{name}: pin the lowest of {bound}, not {pins[name]}"


def test_the_workflow_runs_every_python_that_is_promised() -> None:
    python = "Programming Language :: Python :: "
    promised = [
        each.removeprefix(python) for each in PROJECT["classifiers"] if each.startswith(f"{python}3.")
    ]
    (listed,) = re.findall(r"^ +python: \[(.+)\]$", WORKFLOW, re.MULTILINE)
    assert re.findall(r'"([\d.]+)"', listed) == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
    for system in ("ubuntu-latest", "macos-latest", "windows-latest"):
        assert system in WORKFLOW
    for path in re.findall(r"(?:tests|examples)/[\w./-]+", WORKFLOW):
        assert (ROOT / path).is_file(), f"the workflow names {path}, which is not there"


@pytest.mark.slow
def test_a_wheel_codes_in_an_empty_folder_without_torch(tmp_path: Path, recording: Path) -> None:
    """What is built from the checkout holds the model, and needs no torch to code with it."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    quiet = ["--no-deps", "--no-index", "--quiet"]
    wheels, target = tmp_path / "wheels", tmp_path / "target"
    source = tmp_path / "source"
    _copy_checkout(source)
    _run([*pip, "wheel", *quiet, "--no-build-isolation", "--wheel-dir", wheels, source], tmp_path)
    (wheel,) = wheels.glob("snaccli-*.whl")
    _run([*pip, "install", *quiet, "--target", target, wheel], tmp_path)
    # As `python -m snaccli`, with one more line that tells what came to be imported.
    script = textwrap.dedent(f"""
        import runpy, sys
        sys.path.insert(0, {str(target)!r})
        sys.argv = ["snac", "encode", {str(recording)!r}, "-o", "speech.snac", "--device", "cpu"]
        try:
            runpy.run_module("snaccli", run_name="__main__")
        except SystemExit as end:
            assert not end.code, end.code
        assert sys.modules["snaccli"].__file__.startswith({str(target)!r})
        assert "torch" not in sys.modules, "torch was imported"
    """)
    _run([sys.executable, "-c", script], tmp_path)
    assert (tmp_path / "speech.snac").stat().st_size > 100


def _copy_checkout(target: Path) -> None:
    """Only what is in version control and the build reads: a build folder of old would find its way in."""
    target.mkdir()
    for name in ("snac", "snaccli"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)


def _run(command: list[str | Path], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
