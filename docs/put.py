"""Puts what it reads into a page, between two marks:  COMMAND | python docs/put.py PAGE NAME [--indent]

The marks are the comments `<!-- NAME -->` and `<!-- /NAME -->`. With --indent the text becomes a code block.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path


def replaced(page: str, name: str, text: str) -> str:
    """The page with other text between the marks.

    Raises:
        ValueError: the page has not the two marks, once each.
    """
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    pattern = re.compile(rf"{re.escape(opening)}\n.*?{re.escape(closing)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"there is no one place between {opening} and {closing}")
    return pattern.sub(lambda _: f"{opening}\n\n{text.strip(chr(10))}\n\n{closing}", page)


def main() -> None:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("name")
    parser.add_argument("--indent", action="store_true")
    chosen = parser.parse_args()
    text = "\n".join(line.rstrip() for line in sys.stdin.read().splitlines())
    if not text.strip():
        sys.exit(f"put.py: nothing to put into {chosen.page}: the command before it failed")
    page = chosen.page.read_text(encoding="utf-8")
    text = textwrap.indent(text, "    ") if chosen.indent else text
    chosen.page.write_text(replaced(page, chosen.name, text), encoding="utf-8")


if __name__ == "__main__":
    main()
