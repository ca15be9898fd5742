"""The training loop: steps, validation, checkpoints, resume."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snac.checkpoint import save_checkpoint
from snac.snac import SNAC

from ..errors import SnacError
from .config import TrainConfig
from .data import SegmentSampler, validation_segments
from .fused import fuse_layers
from .losses import LowBandLoss, SpectralLoss
from .quantise import CodebookUsage, QuantiseResult, fit_codebooks, quantise, soften

CHECKPOINT = "last.pt"


class TrainingError(SnacError):
    """A run cannot go on: the loss is not finite, or a checkpoint does not fit."""


class Trainer:
    """A training run in a folder: ``last.pt`` (everything needed to resume) and ``log.jsonl`` (its log).

    Each step's batch and noise depend on the seed and the step alone, so that a run continued from its
    checkpoint equals the run uninterrupted.
    """

    def __init__(self, config: TrainConfig, folder: str | Path) -> None:
        self.config = config
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.model = SNAC.from_model_config(config.model).train()
        self.spectral = SpectralLoss(config.model.sampling_rate)
        self.low_band = LowBandLoss(config.model.sampling_rate)
        self.usage = CodebookUsage(self.model.quantizer)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        data = config.data
        self.sampler = SegmentSampler(
            data.train, config.model.sampling_rate, data.segment, data.batch, config.seed
        )
        self.step = 0
        if config.compile:
            fuse_layers(self.model)

    def run(self, report: Callable[[dict[str, Any]], None] = lambda row: None) -> None:
        """Trains to the last step; ``report`` gets each row of the log.

        Raises:
            TrainingError: the loss is no longer finite; the last checkpoint stands.
        """
        config = self.config
        started, since = time.monotonic(), self.step
        while self.step < config.steps:
            if self.step == config.unquantised_steps:
                self._fit_codebooks(report)
            losses = self._train_step()
            self.step += 1
            if self.step % 10 == 0:
                rate = (time.monotonic() - started) / (self.step - since)
                self._log({"step": self.step, "seconds_a_step": round(rate, 3), **losses}, report)
            settled = self.step > config.steps - config.decay_steps
            if self._quantised() and not settled and self.step % config.revive_every == 0:
                revived, perplexity = self.usage.revive(), self.usage.perplexity()
                row = {"step": self.step, "revived": revived, "perplexity": perplexity}
                self._log(row, report)
            if self.step % config.validate_every == 0 or self.step == config.steps:
                self._log({"step": self.step, "validation": self.validate()}, report)
            if self.step % config.checkpoint_every == 0 or self.step == config.steps:
                self.save()

    def _quantised(self) -> bool:
        return self.step >= self.config.unquantised_steps

    def _learning_rate(self) -> float:
        config = self.config
        rise = min(1.0, (self.step + 1) / max(config.warmup_steps, 1))
        fall = min(1.0, (config.steps - self.step) / max(config.decay_steps, 1))
        return config.learning_rate * rise * fall

    def _train_step(self) -> dict[str, float]:
        torch.manual_seed((self.config.seed << 32) + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate()
        audio = torch.from_numpy(self.sampler(self.step))
        losses, quantised = self._losses(audio)
        total = sum(getattr(self.config.weights, name) * loss for name, loss in losses.items())
        assert isinstance(total, Tensor)
        if not math.isfinite(float(total.detach())):
            raise TrainingError(
                f"the loss is not finite at step {self.step}; resume {CHECKPOINT} with a lower learning rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimizer.step()
        if quantised is not None:
            self.usage.update(quantised)
        values = {name: round(float(loss.detach()), 5) for name, loss in losses.items()}
        return {"loss": round(float(total.detach()), 4), **values, "gradient_norm": round(float(norm), 3)}

    def _losses(self, audio: Tensor) -> tuple[dict[str, Tensor], QuantiseResult | None]:
        """Losses of audio (B, 1, T), by the names of :class:`LossWeights`."""
        z = self.model.encoder(audio)
        losses: dict[str, Tensor] = {}
        quantised = None
        if self._quantised():
            quantised = quantise(self.model.quantizer, z)
            z_q, losses["commitment"], losses["codebook"] = (
                quantised.z_q,
                quantised.commitment,
                quantised.codebook,
            )
        else:
            z_q, losses["commitment"] = soften(self.model.quantizer, z)
        decoded = self.model.decoder(z_q)
        losses["waveform"] = (decoded - audio).abs().mean()
        losses["low_band"] = self.low_band(decoded[:, 0], audio[:, 0])
        losses["stft"], losses["mel"] = self.spectral(decoded[:, 0], audio[:, 0])
        return losses, quantised

    @torch.no_grad()
    def _fit_codebooks(self, report: Callable[[dict[str, Any]], None]) -> None:
        data = self.config.data
        seconds_a_batch = data.batch * data.segment / self.config.model.sampling_rate
        count = max(1, round(self.config.fit_seconds / seconds_a_batch))
        # Batch numbers past the last step: audio that training itself does not see in this order.
        batches = (torch.from_numpy(self.sampler(self.config.steps + i)) for i in range(count))
        fitted = fit_codebooks(self.model.quantizer, (self.model.encoder(audio) for audio in batches))
        self.usage = CodebookUsage(self.model.quantizer)
        self._log({"step": self.step, "codebooks_fitted_to": fitted}, report)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean losses over the validation sets, without augmentation."""
        data = self.config.data
        self.model.eval()
        sums: dict[str, float] = {}
        count = 0
        for audio in validation_segments(data.validation, self.config.model.sampling_rate, data.segment):
            losses, _ = self._losses(torch.from_numpy(audio))
            count += 1
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + float(loss)
        self.model.train()
        return {name: round(value / max(count, 1), 5) for name, value in sums.items()}

    def save(self) -> None:
        """Writes the checkpoint: whole, or not at all."""
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "counts": self.usage.counts,
            "recent": self.usage.recent,
            "config": json.dumps(asdict(self.config)),
        }
        partial = self.folder / (CHECKPOINT + ".part")
        torch.save(state, partial)
        os.replace(partial, self.folder / CHECKPOINT)

    def resume(self) -> bool:
        """Takes up the folder's checkpoint; False where there is none.

        Raises:
            TrainingError: the checkpoint is damaged or of another model.
        """
        path = self.folder / CHECKPOINT
        if not path.exists():
            return False
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
        except Exception as error:
            raise TrainingError(f"{path}: does not fit this configuration: {error}") from error
        self.step = state["step"]
        self.usage.counts, self.usage.recent = state["counts"], state["recent"]
        return True

    def export(self, folder: str | Path) -> Path:
        """Writes the model as it is now, in half precision: usable at once as ``-m FOLDER``."""
        return save_checkpoint(folder, self.config.model, self.model.state_dict(), half=True)

    def _log(self, row: dict[str, Any], report: Callable[[dict[str, Any]], None]) -> None:
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        report(row)
