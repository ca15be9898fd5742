"""Makes docs/cli.md from the command line itself: python docs/make_cli.py (--check compares only).

Made from the commands' own descriptions rather than from rendered help, whose looks change with the width
of the terminal and the version of Typer.
"""

from __future__ import annotations

import argparse
import sys
from enum import Enum
from pathlib import Path
from typing import Any

from snaccli.cli.app import snac_command

TARGET = Path(__file__).with_name("cli.md")
PREFACE = """\
# The command line

Made by `python docs/make_cli.py`; do not edit. `snac COMMAND --help` says the same. Exit status: 0 done, 1
something failed, 2 wrong usage, 130 interrupted; on Unix the program then dies of the signal, so that a loop
of the shell ends with it.
"""


def page() -> str:
    """The whole document."""
    return "\n".join([PREFACE, *sections(snac_command(), "snac")])


def sections(command: Any, name: str) -> list[str]:
    """The section of a command, then those of its subcommands."""
    found = [section(command, name)]
    if hasattr(command, "list_commands"):
        for short in command.list_commands(None):
            found += sections(command.get_command(None, short), f"{name} {short}")
    return found


def section(command: Any, name: str) -> str:
    """Usage, description, a table of arguments and options, examples."""
    params = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in params if param.param_type_name == "argument"]
    usage = [name, "[OPTIONS]", *map(argument_name, arguments)]
    if hasattr(command, "list_commands"):
        usage.append("COMMAND ...")
    lines = [f"## {name}", "", "```", " ".join(usage), "```", "", reflow(command.help or "")]
    rows = [row(param) for param in params]
    if rows:
        lines += ["", "| | |", "|---|---|", *rows]
    examples = (command.epilog or "").replace("\b", "").strip().removeprefix("Examples:").strip()
    if examples:
        lines += ["", "```", examples, "```"]
    return "\n".join(lines) + "\n"


def reflow(text: str) -> str:
    """Paragraphs on one line each, without the marks that tell Typer not to wrap."""
    paragraphs = text.replace("\b", "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def argument_name(param: Any) -> str:
    """An argument as the usage line shows it."""
    name = (param.metavar or param.name.upper()).removesuffix("...")
    name = name if param.required or name.startswith("[") else f"[{name}]"
    return f"{name}..." if param.nargs == -1 else name


def row(param: Any) -> str:
    """One argument or option as a row of the table."""
    if param.param_type_name == "argument":
        left = f"`{argument_name(param)}`"
    else:
        left = ", ".join(f"`{flag}`" for flag in [*param.opts, *param.secondary_opts])
        if not param.is_flag:
            left += f" `{value_name(param)}`"
    return f"| {left} | {reflow(param.help or '')}{default(param)} |".replace("\n\n", " ")


def value_name(param: Any) -> str:
    """What stands for an option's value: its choices, or its metavar."""
    if isinstance(param.default, Enum) and not param.metavar:
        return r"\|".join(str(choice.value) for choice in type(param.default))
    return str(param.metavar or "VALUE")


def default(param: Any) -> str:
    """The default value in words, where there is one worth telling."""
    value = param.default.value if isinstance(param.default, Enum) else param.default
    untold = value is None or value == () or callable(value)
    if untold or param.param_type_name == "argument" or param.is_flag:
        return ""
    return f" Default: {value}."


def main() -> int:
    """Writes the page, or with --check says whether it is current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if it is stale")
    if parser.parse_args().check:
        return 0 if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == page() else 1
    TARGET.write_text(page(), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
