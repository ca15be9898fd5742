"""The attention, under the published package's name of its module.

Its ``SinusoidalEmbeddings`` is ``snac.nn.layers.RotaryEmbedding`` here, which takes a length and has no
scale; ``rotate_half`` and ``apply_rotary_pos_emb`` are not there.
"""

from __future__ import annotations

from snac.nn.layers import LocalMHA

__all__ = ["LocalMHA"]
