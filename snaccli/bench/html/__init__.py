"""A bench as one HTML page that needs nothing but itself: no network, and to be read, no scripts either."""

from __future__ import annotations

from snaccli.bench.html.page import to_html

__all__ = ["to_html"]
