"""Every command says what it does; what needs no model starts without one."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
import typer

from snaccli.cli.app import COMMANDS as TABLE
from snaccli.cli.app import Group, run, snac_command
from snaccli.cli.options import complete_model, seconds
from snaccli.cli.ui.console import Console


def call(*arguments: str):
    console = Console(io.StringIO(), io.StringIO(), {"COLUMNS": "80"})
    status = run(arguments, console)
    return status, console.stdout.getvalue(), console.stderr.getvalue()


def walk(command=None, path=()):
    command = command or snac_command()
    yield path, command
    if hasattr(command, "list_commands"):
        for name in command.list_commands(None):
            yield from walk(command.get_command(None, name), (*path, name))


def named(value):
    return " ".join(["snac", *value]) if isinstance(value, tuple) else "-"


COMMANDS = list(walk())
LEAVES = [(path, command) for path, command in COMMANDS if not hasattr(command, "list_commands")]


def test_all_commands_are_there():
    assert {path for path, _ in COMMANDS} >= {
        (),
        ("encode",),
        ("decode",),
        ("info",),
        ("verify",),
        ("bench",),
        ("models",),
        ("models", "list"),
        ("models", "pull"),
        ("models", "show"),
    }


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=named)
def test_every_command_and_option_has_help(path, command):
    assert command.help
    assert command.help.strip().endswith(".")
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{' '.join(path)}: {parameter.name} has no help"
    status, out, err = call(*path, "--help")
    assert (status, err) == (0, "")
    assert command.help.split("\n")[0][:30] in out
    assert call(*path, "-h") == (status, out, err)


@pytest.mark.parametrize(("path", "command"), COMMANDS[1:], ids=named)
def test_the_list_of_commands_says_what_each_says_of_itself(path, command):
    entry = TABLE[path[0]]
    if isinstance(entry, Group) and len(path) > 1:
        entry = entry.commands[path[1]]
    assert command.help.splitlines()[0] == entry.summary
    start = " ".join(entry.summary.split()[:3])
    assert start in call(*path[:-1], "--help")[1]


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=named)
def test_every_command_has_examples_and_the_shared_options(path, command):
    examples = command.epilog.partition("Examples:")[2]
    assert f"snac {' '.join(path)}" in examples
    options = {name for parameter in command.params for name in parameter.opts}
    assert {"--json", "--quiet", "-q", "--verbose", "-v", "--debug"} <= options
    if path[0] in ("encode", "decode", "bench"):
        assert {"--device", "--threads", "--model"} <= options


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=named)
def test_the_examples_use_options_that_exist(path, command):
    options = {name for parameter in command.params for name in parameter.opts}
    lines = [line for line in command.epilog.splitlines() if f"snac {' '.join(path)}" in line]
    assert lines
    for line in lines:
        words = line.partition(f"snac {' '.join(path)}")[2].partition("  ")[0].partition("|")[0].split()
        used = {word for word in words if word.startswith("-") and word != "-"}
        assert used <= options, line


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["bogus"], "snac: no such command 'bogus'"),
        (["encode"], "snac: missing argument"),
        (["encode", "--bogus", "x"], "snac: no such option"),
        (["encode", "-j", "0", "x"], "snac: invalid value for '-j' / '--jobs'"),
        (["encode", "--threads", "few", "x"], "snac: invalid value for '--threads'"),
        (["encode", "--device", "abacus", "x"], "snac: invalid value for '--device'"),
        (["encode", "--channels", "left", "x"], "snac: invalid value for '--channels'"),
        (["decode", "--start", "noon", "x"], "snac: invalid value for '--start': 'noon' is not a time"),
        (["decode", "--levels", "0", "x"], "snac: invalid value for '--levels'"),
        (["models", "bogus"], "snac: no such command 'bogus'"),
        (["models", "pull"], "snac: missing argument"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments, line):
    status, out, err = call(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith(line)
    assert err.count("\n") == 1
    assert "--help" in err


@pytest.mark.parametrize("arguments", [[], ["models"]])
def test_no_command_shows_what_there_is(arguments):
    status, out, _ = call(*arguments)
    assert status == 2
    assert "Usage: snac" in out


def test_the_version():
    from snac import __version__

    assert call("--version") == (0, f"snac {__version__}\n", "")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("90", 90),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1:30", 90),
        ("01:02:03.25", 3723.25),
        ("90:00", 5400),
    ],
)
def test_times(text, value):
    assert seconds(text) == value


@pytest.mark.parametrize(
    "text", ["", "-1", "1:60", "1:75:00", "1:2:3:4", "inf", "nan", "1e3", "a", "1:", "٣"]
)
def test_what_is_no_time(text):
    with pytest.raises(typer.BadParameter, match="is not a time"):
        seconds(text)


def test_model_names_are_offered_to_the_shell():
    assert [name for name, _ in complete_model("")] == ["mini", "24khz", "32khz", "44khz"]
    assert [name for name, _ in complete_model("3")] == ["32khz"]


def modules_after(*arguments: str, **environment: str) -> tuple[set[str], subprocess.CompletedProcess[str]]:
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('\\nMODULES', *sys.modules))\n"
        "sys.argv = ['snac', *sys.argv[1:]]\n"
        "from snaccli.__main__ import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return set(done.stdout.rpartition("MODULES")[2].split()), done


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["encode", "--help"],
        ["models", "list"],
        ["models", "show", "24khz"],
        ["info", "missing.snac"],
        ["verify", "missing.snac"],
        ["encode", "missing.wav"],
        ["decode", "missing.snac"],
        ["bogus"],
    ],
    ids=" ".join,
)
def test_what_needs_no_model_does_not_import_torch(arguments):
    modules, _ = modules_after(*arguments)
    assert "snaccli.cli.app" in modules
    assert "torch" not in modules


HEAVY = {"constriction", "huggingface_hub", "numba", "numpy", "pydantic", "rich", "scipy", "soundfile"}
HEAVY |= {"soxr", "torch"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], ["encode", "--help"], ["info", "missing.snac"], ["verify", "missing.snac"]],
    ids=" ".join,
)
def test_what_must_start_at_once_imports_no_large_package(arguments):
    modules, _ = modules_after(*arguments)
    assert not modules & HEAVY


@pytest.mark.parametrize(
    ("arguments", "module"),
    [
        (["--help"], None),
        (["models"], None),
        (["info", "missing.snac"], "contents"),
        (["tokens", "export", "--help"], "tokens"),
    ],
    ids=str,
)
def test_only_the_command_that_is_called_is_imported(arguments, module):
    modules, _ = modules_after(*arguments)
    commands = {entry.module for entry in TABLE.values() if not isinstance(entry, Group)}
    commands |= {"tokens", "prior", "models"}
    wanted = {f"snaccli.cli.commands.{module}"} if module else set()
    assert modules & {f"snaccli.cli.commands.{name}" for name in commands} == wanted


def test_completion_offers_models_without_torch():
    modules, done = modules_after(
        _SNAC_COMPLETE="complete_bash", COMP_WORDS="snac encode -m 2", COMP_CWORD="3", _TYPER_COMPLETE_ARGS=""
    )
    assert "24khz" in done.stdout.split()
    assert "torch" not in modules
