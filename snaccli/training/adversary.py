"""The discriminators' side of training: their step, and what they tell the codec."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snaccli.training.config import TrainConfig
from snaccli.training.discriminators import (
    Discriminators,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)
from snaccli.training.processes import Processes


class Adversary:
    """Discriminators with their optimiser.

    Within a step, the codec hears the discriminators as they were before it, and they learn from what the
    codec put out: so a batch may be computed in parts.
    """

    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        settings = config.adversarial
        torch.manual_seed(config.seed)  # others may have drawn meanwhile, as accelerate does
        self.discriminators = Discriminators(settings.periods, settings.windows, settings.channels)
        self._autocast = config.precision == "bf16"
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
        self.discriminators.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _cast(self, audio: Tensor) -> torch.autocast:
        return torch.autocast(audio.device.type, torch.bfloat16, enabled=self._autocast)
