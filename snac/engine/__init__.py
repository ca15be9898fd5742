"""The model as it is run: pieces of a signal through a chain of stages. Knows no torch on a CPU."""

from snac.engine.build import Engine, build_engine
from snac.engine.quantise import Quantiser

__all__ = ["Engine", "Quantiser", "build_engine"]
