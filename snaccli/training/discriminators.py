"""Discriminators that tell decoded audio from recordings, their own training, and the adversarial losses."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from snaccli.training.config import TrainConfig
from snaccli.training.processes import Processes
from snaccli.training.state import demand_tensors, load_optimizer

Features = list[Tensor]
_SLOPE = 0.1
_BAND_EDGES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # shares of the spectrum


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> nn.Module:
    padding = (kernel[0] // 2, kernel[1] // 2)
    layer: nn.Module = weight_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding))
    return layer


class PeriodDiscriminator(nn.Module):
    """Looks at every ``period``-th sample side by side (Kong et al. 2020, arXiv 2010.05646, section 2.3).

    Args:
        period: samples a row.
        channels: of the first layer; the others have 4, 16, 32 and 32 times as many.
    """

    def __init__(self, period: int, channels: int = 32) -> None:
        super().__init__()
        self.period = period
        widths = [1, *(channels * factor for factor in (1, 4, 16, 32))]
        layers = [_conv(a, b, (5, 1), (3, 1)) for a, b in pairwise(widths)]
        self.layers = nn.ModuleList([*layers, _conv(widths[-1], widths[-1], (5, 1))])
        self.last = _conv(widths[-1], 1, (3, 1))

    def forward(self, audio: Tensor) -> Features:
        """Audio (B, 1, T) to the feature maps of each layer; the last one is the verdict."""
        x = F.pad(audio, (0, -audio.shape[-1] % self.period))
        x = x.view(x.shape[0], 1, -1, self.period)  # B 1 T/period period
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), _SLOPE)
            features.append(x)
        return [*features, self.last(x)]


class SpectrumDiscriminator(nn.Module):
    """Looks at the complex STFT in bands (Kumar et al. 2023, arXiv 2306.06546, section 3.3).

    Args:
        window: samples; the hop is a quarter of it.
        channels: of every layer.
    """

    def __init__(self, window: int, channels: int = 32) -> None:
        super().__init__()
        self.window = window
        self.register_buffer("hann", torch.hann_window(window), persistent=False)
        bins = window // 2 + 1
        edges = [round(edge * bins) for edge in _BAND_EDGES]
        self.bands = [(low, high) for low, high in pairwise(edges) if high > low]
        self.stacks = nn.ModuleList(self._stack(channels) for _ in self.bands)
        self.last = _conv(channels, 1, (3, 3))

    @staticmethod
    def _stack(channels: int) -> nn.ModuleList:
        return nn.ModuleList(
            [
                _conv(2, channels, (3, 9)),
                *(_conv(channels, channels, (3, 9), (1, 2)) for _ in range(3)),
                _conv(channels, channels, (3, 3)),
            ]
        )

    def forward(self, audio: Tensor) -> Features:
        """Audio (B, 1, T) to the feature maps of each band and layer; the last one is the verdict."""
        spectrum = torch.stft(
            audio[:, 0].float(),
            self.window,
            self.window // 4,
            window=self.get_buffer("hann"),
            pad_mode="constant",
            return_complex=True,
        )
        parts = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # B 2 frames bins
        features, ends = [], []
        for (low, high), stack in zip(self.bands, self.stacks, strict=True):
            x = parts[..., low:high]
            for layer in stack:  # type: ignore[attr-defined]
                x = F.leaky_relu(layer(x), _SLOPE)
                features.append(x)
            ends.append(x)
        return [*features, self.last(torch.cat(ends, dim=-1))]


class Discriminators(nn.Module):
    """Multi-period and multi-resolution discriminators together.

    Args:
        periods: of the first kind, in samples.
        windows: of the second kind, in samples.
        channels: of their first layers.
    """

    def __init__(self, periods: Sequence[int], windows: Sequence[int], channels: int) -> None:
        super().__init__()
        kinds: list[nn.Module] = [PeriodDiscriminator(period, channels) for period in periods]
        kinds += [SpectrumDiscriminator(window, channels) for window in windows]
        self.discriminators = nn.ModuleList(kinds)

    def forward(self, audio: Tensor) -> list[Features]:
        """Audio (B, 1, T) to the features of each discriminator."""
        return [discriminator(audio) for discriminator in self.discriminators]


def discriminator_loss(real: Sequence[Features], decoded: Sequence[Features]) -> Tensor:
    """Least squares: 1 for recordings, 0 for decoded audio (Mao et al. 2017, arXiv 1611.04076, equation 9).

    Mean over the discriminators, of features from :class:`Discriminators`.
    """
    parts = [
        (1 - wanted[-1]).square().mean() + got[-1].square().mean()
        for wanted, got in zip(real, decoded, strict=True)
    ]
    return torch.stack(parts).mean()


def adversarial_loss(decoded: Sequence[Features]) -> Tensor:
    """What the codec loses where its audio is not taken for a recording, by the same least squares."""
    return torch.stack([(1 - got[-1]).square().mean() for got in decoded]).mean()


def feature_loss(real: Sequence[Features], decoded: Sequence[Features]) -> Tensor:
    """L1 distance of the feature maps (Larsen et al. 2016; arXiv 2010.05646, equation 6).

    The mean over maps and discriminators, where the paper has the sum: so the weight need not change with
    their number.
    """
    parts = [
        F.l1_loss(got, wanted.detach())
        for features, others in zip(real, decoded, strict=True)
        for wanted, got in zip(features[:-1], others[:-1], strict=True)
    ]
    return torch.stack(parts).mean()


class Adversary:
    """Discriminators with their optimiser.

    Within a step, the codec hears the discriminators as they were before it, and they learn from what the
    codec put out: so a batch may be computed in parts.
    """

    def __init__(self, config: TrainConfig, processes: Processes, autocast: bool) -> None:
        settings = config.adversarial
        torch.manual_seed(config.seed)  # others may have drawn meanwhile, as accelerate does
        self.discriminators = Discriminators(settings.periods, settings.windows, settings.channels)
        self._autocast = autocast
        self._processes = processes
        self._trained = processes.wrap(self.discriminators)
        self._clip = config.clip
        self.optimizer = torch.optim.AdamW(
            self.discriminators.parameters(),
            lr=settings.learning_rate,
            betas=(config.betas[0], config.betas[1]),
            weight_decay=config.weight_decay,
        )

    @staticmethod
    def wanted(config: TrainConfig) -> bool:
        """Whether the configuration gives their losses a weight."""
        return config.weights.adversarial > 0 or config.weights.feature > 0

    def learn(self, audio: Tensor, decoded: Tensor, share: float, sync: bool) -> Tensor:
        """Adds the gradients of telling (B, 1, T) ``audio`` from ``decoded``; returns their loss.

        Args:
            audio: recordings.
            decoded: what the codec made of them.
            share: of the step's batch that these are.
            sync: whether these are the step's last, after which the processes add up.
        """
        with self._processes.adding_up(self._trained, sync), self._cast(audio):
            both = self._trained(torch.cat((audio, decoded.detach())))
            halves = [[map_.chunk(2) for map_ in features] for features in both]
            real = [[half[0] for half in features] for features in halves]
            fake = [[half[1] for half in features] for features in halves]
            loss = discriminator_loss(real, fake).float()
            (share * loss).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def judge(self, audio: Tensor, decoded: Tensor) -> dict[str, Tensor]:
        """The codec's losses by the names of ``LossWeights``; gradients go to ``decoded`` alone."""
        self.discriminators.requires_grad_(False)
        try:
            with self._cast(audio):
                with torch.no_grad():
                    real = self.discriminators(audio)
                fake = self.discriminators(decoded)
                return {
                    "adversarial": adversarial_loss(fake).float(),
                    "feature": feature_loss(real, fake).float(),
                }
        finally:
            self.discriminators.requires_grad_(True)

    def step(self, rate_factor: float, base_rate: float) -> None:
        """Applies the gradients gathered by :meth:`learn`, at a learning rate of the product of the two."""
        for group in self.optimizer.param_groups:
            group["lr"] = base_rate * rate_factor
        torch.nn.utils.clip_grad_norm_(self.discriminators.parameters(), self._clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimiser."""
        return {"weights": self.discriminators.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes up what :meth:`state_dict` gave."""
        demand_tensors(state["weights"], self.discriminators.state_dict(), "the discriminators' weights")
        self.discriminators.load_state_dict(state["weights"])
        load_optimizer(self.optimizer, state["optimizer"])

    def _cast(self, audio: Tensor) -> torch.autocast:
        return torch.autocast(audio.device.type, torch.bfloat16, enabled=self._autocast)
