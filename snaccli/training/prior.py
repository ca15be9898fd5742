"""Learns a prior (see ``snaccli.entropy.prior``) from token grids: trained in floats, kept in integers.

The network of each level is trained on the cross-entropy of its tokens, all levels at once, since they share
the embeddings. Embeddings and output tables begin as the codebook's own points: codewords that lie near each
other are alike before anything is learned.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, embedding

from snaccli.codes import Codes
from snaccli.entropy import mixing
from snaccli.entropy.arithmetic import points_of
from snaccli.entropy.prior import COARSER, REACH, Prior, inputs_of
from snaccli.errors import PriorError
from snaccli.training.corpus import Corpus, Means
from snaccli.training.rounding import STEPS_PER_NAT, bytes_of, quantised, rounded, scales_of
from snaccli.training.softmax import cross_entropy_of, product_type
from snaccli.training.state import checked_count, demand_tensors, load_optimizer, write_checkpoint

__all__ = ["PriorConfig", "Report", "train_prior"]

_TAPER = 0.5  # tokens of a level in a step, of those of the next finer one
_REFRESHED = 250  # steps for which means are of the same embeddings
_FLOATING = 0.3  # of a training, after which it takes its gradients at the integers that will be kept


@dataclass(frozen=True)
class PriorConfig:
    """How a prior is trained.

    Attributes:
        minutes: of training.
        steps: of training, instead of minutes.
        width: of an embedding.
        hidden: units.
        out: numbers of an output.
        windows: latent frames over which means are seen.
        batch: tokens of the finest level a step; a coarser one takes half of those of the next finer one.
        rate: of learning.
        dropped: part of the tokens seen that are taken as missing.
        seed: of the random numbers.
    """

    minutes: float = 20.0
    steps: int | None = None
    width: int = 24
    hidden: int = 512
    out: int = 64
    windows: tuple[int, ...] = (24, 128, 1024)
    batch: int = 2048
    rate: float = 2e-3
    dropped: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """How far a training is.

    Attributes:
        fraction: of the time, 0 to 1.
        steps: done.
        bits: a token of each level on recordings held out, by the prior alone; empty until measured.
    """

    fraction: float
    steps: int
    bits: tuple[float, ...]


class PriorNet(nn.Module):
    """The networks of all levels, in floats."""

    def __init__(self, codebooks: Sequence[np.ndarray], strides: Sequence[int], config: PriorConfig) -> None:
        super().__init__()
        self.strides, self.config = tuple(strides), config
        shape = inputs_of(strides, len(config.windows))
        size = len(codebooks[0])
        self.embeddings, self.tables, self.biases = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        self.first, self.second, self.phases = nn.ModuleList(), nn.ModuleList(), nn.ParameterList()
        for codebook, inputs in zip(codebooks, shape, strict=True):
            points = torch.from_numpy(points_of(codebook).astype(np.float32))
            points = points / points.std().clamp(min=1e-6)
            self.embeddings.append(
                nn.Parameter(torch.cat([_wide(points, config.width), torch.zeros(1, config.width)]))
            )
            self.tables.append(nn.Parameter(_wide(points, config.out)))
            self.biases.append(nn.Parameter(torch.zeros(size)))
            self.first.append(nn.Linear((inputs.tokens + inputs.means) * config.width, config.hidden))
            self.phases.append(nn.Parameter(torch.zeros(inputs.phases, config.hidden)))
            self.second.append(nn.Linear(config.hidden, config.out))

    @torch.no_grad()
    def bytes(self) -> tuple[np.ndarray, float]:
        """The embeddings as int8 (levels, size + 1, width), and the scale by which all but a few fit."""
        return bytes_of(np.stack([table.numpy() for table in self.embeddings]))

    def means(self, corpus: Corpus) -> Means:
        """What the networks see of a corpus beside single tokens: means of the embeddings of now."""
        return Means(corpus, *self.bytes(), self.config.windows)

    @torch.no_grad()
    def take(self, prior: Prior) -> None:
        """Begins from another prior of tokens of the same shape, as of the model that this one grew out of.

        That may have fewer units and outputs, which are then the first of this one's; what it knows of means
        is taken if its windows are the same.

        Raises:
            PriorError: its tokens are of another shape, or it is larger.
        """
        embedding_scale, hidden_scale, out_scale = 32.0, 16.0, 128.0  # any will do: they cancel each other
        windows = self.config.windows
        try:
            if prior.embedding.shape[1:] != (len(self.biases[0]), self.config.width):
                raise ValueError("another number of codewords, or of what stands for one")
            for level, (layer, embedding) in enumerate(zip(prior.layers, prior.embedding, strict=True)):
                wide, narrow = (2.0 ** -float(shift) for shift in layer.shifts)
                # What sums that are rounded down lose, half a step of those that are shifted.
                wide_loss, narrow_loss = (0.5 if shift else 0.0 for shift in layer.shifts)
                first = layer.first.T * (wide * embedding_scale / hidden_scale)
                tokens = inputs_of(self.strides, 0)[level].tokens * self.config.width
                values = {
                    f"embeddings.{level}": np.pad(embedding, ((0, 1), (0, 0))) / embedding_scale,
                    f"first.{level}.weight": first if prior.windows == windows else first[:, :tokens],
                    f"first.{level}.bias": np.zeros(len(first)),
                    f"phases.{level}": (layer.first_bias * wide - wide_loss) / hidden_scale,
                    f"second.{level}.weight": layer.second * (narrow * hidden_scale / out_scale),
                    f"second.{level}.bias": (layer.second_bias * narrow - narrow_loss) / out_scale,
                    f"tables.{level}": layer.table * (out_scale / STEPS_PER_NAT),
                    f"biases.{level}": layer.table_bias / STEPS_PER_NAT,
                }
                for name, value in values.items():
                    mine = self.get_parameter(name)
                    mine[: len(value)] = 0  # so that what is added changes nothing at first
                    mine[tuple(map(slice, value.shape))] = torch.from_numpy(np.asarray(value, np.float32))
        except (ValueError, AttributeError, RuntimeError) as error:
            raise PriorError(
                "the prior to begin from does not fit: its tokens are of another shape, its embeddings of "
                "another width, or it is larger"
            ) from error

    def inner(self, level: int, seen: Tensor, means: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden units (n, hidden) and outputs (n, out) for the tokens and means (n, ...) seen at places."""
        missing = len(self.biases[level])  # its embedding stays 0
        tables = [self.embeddings[level], *self.embeddings[max(0, level - COARSER) : level]]
        parts = torch.split(seen, [mixing.LAGS, *[len(REACH)] * (len(tables) - 1)], dim=1)
        found = [
            embedding(part, table, padding_idx=missing).flatten(1)
            for part, table in zip(parts, tables, strict=True)
        ]
        x = torch.cat([*found, means], 1)
        phase = places % len(self.phases[level])
        hidden = torch.relu(self.first[level](x) + self.phases[level][phase])
        return hidden, self.second[level](hidden)

    def loss(self, level: int, seen: Tensor, means: Tensor, places: Tensor, target: Tensor) -> Tensor:
        """The mean cross-entropy of the tokens that come, in nats."""
        narrow = product_type()
        with torch.autocast("cpu", narrow, enabled=narrow is not torch.float32):
            out = self.inner(level, seen, means, places)[1]
        return cross_entropy_of(out.float(), self.tables[level], self.biases[level], target)

    def forward(self, level: int, seen: Tensor, means: Tensor, places: Tensor) -> Tensor:
        """Scores of all codewords (n, size), in nats."""
        scores: Tensor = self.inner(level, seen, means, places)[1] @ self.tables[level].T + self.biases[level]
        return scores


def train_prior(
    grids: Sequence[Codes],
    held_out: Sequence[Codes],
    codebooks: Sequence[np.ndarray],
    *,
    model: str,
    fingerprint: str,
    config: PriorConfig = PriorConfig(),
    init: Prior | None = None,
    state: Path | None = None,
    report: Callable[[Report], None] = lambda report: None,
) -> Prior:
    """Trains a prior.

    Args:
        grids: tokens to learn from.
        held_out: tokens to measure by.
        codebooks: of the model, float32 (size, dim) a level.
        model, fingerprint: of the model, the latter 16 hex digits.
        config: how.
        init: to begin from, of an earlier model whose tokens were alike; None to begin at random.
        state: where the training is kept, every minute and when it is interrupted, and taken up from.
        report: told every few seconds how it goes.

    Raises:
        PriorError: the tokens are not of one kind, the state is damaged, or the net is no longer finite.
    """
    corpus, checks = Corpus(grids), Corpus(held_out)
    torch.manual_seed(config.seed)
    net = PriorNet(codebooks, corpus.strides, config)
    if init is not None:
        net.take(init)
    run = _Run(net, corpus, config, state)
    bits: tuple[float, ...] = ()
    measured = time.monotonic()
    try:
        while run.fraction < 1:
            run.step()
            if run.steps % 20 == 0:
                report(Report(min(run.fraction, 1.0), run.steps, bits))
            if time.monotonic() - measured > max(30.0, config.minutes * 6):
                bits, measured = run.measured(checks), time.monotonic()
                run.keep()
    except KeyboardInterrupt:
        run.keep()
        raise
    bits = run.measured(checks)
    # Weights as bytes are finite, whatever became of them.
    if not all(map(math.isfinite, (*bits, *measure(run.net, checks, most=100)))):
        raise PriorError("the training's numbers are no longer finite: lower its rate, or remove its state")
    report(Report(1.0, run.steps, bits))
    summary = {
        "tokens": sum(grid.tokens for grid in grids),
        "held_out_bits": [round(each, 3) for each in bits],
        **asdict(config),
        "steps": run.steps,
    }
    prior = quantised(run.net, run.scales, model, fingerprint, summary)
    if state is not None:
        state.unlink(missing_ok=True)
    return prior


class _Run:
    """A training under way."""

    def __init__(self, net: PriorNet, corpus: Corpus, config: PriorConfig, state: Path | None) -> None:
        self.net, self.corpus, self.config, self.state = net, corpus, config, state
        self.optimiser = torch.optim.Adam(net.parameters(), lr=config.rate, betas=(0.9, 0.99), fused=True)
        self.steps, self.earlier = 0, 0.0
        if state is not None and state.exists():
            self._take_up(state)
        self._refresh()
        self.rng = np.random.default_rng([config.seed, self.steps])
        self.began = time.monotonic()

    def _take_up(self, state: Path) -> None:
        """Goes on from a state, if it is of this configuration.

        Raises:
            PriorError: it is damaged.
        """
        try:
            kept = torch.load(state, weights_only=True)
            if kept["config"] == asdict(self.config) and kept["strides"] == list(self.corpus.strides):
                demand_tensors(kept["net"], self.net.state_dict(), "the weights")
                self.net.load_state_dict(kept["net"])
                load_optimizer(self.optimiser, kept["optimiser"])
                self.steps, self.earlier = checked_count(kept["steps"], "steps"), kept["seconds"]
                if type(self.earlier) is not float or not 0 <= self.earlier < math.inf:
                    raise ValueError("seconds is no length of time")
        except Exception as error:  # the unpickler fails with whatever its own state leads to
            line = str(error).partition("\n")[0][:100]
            raise PriorError(f"is no state of a training, or damaged ({line}); remove it", state) from error

    @property
    def fraction(self) -> float:
        """Of the training that is over."""
        if self.config.steps is not None:
            return self.steps / max(1, self.config.steps)
        return (self.earlier + time.monotonic() - self.began) / max(1e-9, 60 * self.config.minutes)

    def step(self) -> None:
        """One step of all levels."""
        if self.steps - self.since >= _REFRESHED:
            del self.means  # large: the sums of before make room for the new ones
            self._refresh()
        warm, left = min(1.0, (self.steps + 1) / 50), (1 - self.fraction) / 0.7
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.rate * warm * max(0.03, min(1.0, left))
        self.optimiser.zero_grad()
        with rounded(self.net, self.scales) if self.fraction >= _FLOATING else nullcontext():
            self._gradients()
        self.optimiser.step()
        self.steps += 1

    def _gradients(self) -> None:
        """Adds up the gradients of all levels at places drawn anew."""
        finest = len(self.corpus.strides) - 1
        for level, places in enumerate(self.corpus.places):
            count = min(len(places), round(self.config.batch * _TAPER ** (finest - level)))
            at = places[self.rng.integers(0, len(places), count)]
            seen = self.corpus.context(level, at)
            seen[self.rng.random(seen.shape) < self.config.dropped] = self.corpus.size
            data = seen, self.means.at(level, at), at, self.corpus.levels[level][at]
            loss = self.net.loss(level, *map(torch.from_numpy, data))
            torch.autograd.backward(loss * (count / self.config.batch))

    def _refresh(self) -> None:
        """Sums up the means of the embeddings of now, and sees how large the net's numbers are."""
        self.means, self.since = self.net.means(self.corpus), self.steps
        self.scales = scales_of(self.net, self.corpus, self.means)

    def measured(self, corpus: Corpus) -> tuple[float, ...]:
        """Bits a token of each level of a corpus, by the net as it would be kept."""
        with rounded(self.net, self.scales):
            return measure(self.net, corpus)

    def keep(self) -> None:
        """Writes the state, whole or not at all.

        Raises:
            TrainingError: the disk refuses.
        """
        if self.state is None:
            return
        kept = {
            "net": self.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "seconds": self.earlier + time.monotonic() - self.began,
            "config": asdict(self.config),
            "strides": list(self.corpus.strides),
        }
        write_checkpoint(self.state, kept)


@torch.no_grad()
def measure(net: PriorNet, corpus: Corpus, most: int = 4000) -> tuple[float, ...]:
    """Bits a token of each level, by the net alone, of at most so many tokens."""
    bits, means = [], net.means(corpus)
    for level, places in enumerate(corpus.places):
        at = places[:: max(1, len(places) // most)]
        total = 0.0
        for start in range(0, len(at), 512):
            some = at[start : start + 512]
            data = corpus.context(level, some), means.at(level, some), some
            scores = net(level, *map(torch.from_numpy, data))
            target = torch.from_numpy(corpus.levels[level][some])
            total += float(cross_entropy(scores, target, reduction="sum"))
        bits.append(total / max(1, len(at)) / math.log(2))
    return tuple(bits)


def _wide(points: Tensor, width: int) -> Tensor:
    """Points (size, dim) as (size, width): cut off, or small random numbers for what is left."""
    noise = 0.1 * torch.randn(len(points), width)
    dim = min(width, points.shape[1])
    noise[:, :dim] = points[:, :dim]
    return noise
