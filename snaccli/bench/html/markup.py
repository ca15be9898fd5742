"""HTML and SVG built so that text cannot turn into markup."""

from __future__ import annotations

from html import escape

__all__ = ["Markup", "element", "join"]

_VOID = frozenset(("br", "img", "input", "meta"))


class Markup(str):
    """Text that is markup already; every other string is escaped where it is put into an element."""


def join(parts: list[Markup]) -> Markup:
    """Returns pieces of markup, one after the other."""
    return Markup("".join(parts))


def element(tag: str, /, *children: str, **attributes: str | float | bool | None) -> Markup:
    """Returns an element with children (escaped unless they are `Markup`) and attributes (always escaped).

    In names of attributes ``_`` stands for ``-``, and one at the end is dropped: ``class_``, ``aria_label``.
    True gives an attribute without a value; None and False leave it out.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{escape(str(value))}"')
    opening = f"<{tag}{''.join(written)}>"
    if tag in _VOID:
        return Markup(opening)
    inner = "".join(child if isinstance(child, Markup) else escape(child) for child in children)
    return Markup(f"{opening}{inner}</{tag}>")
