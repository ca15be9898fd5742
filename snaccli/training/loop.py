"""The training loop: steps, validation, checkpoints, resume."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from snaccli.errors import Remedy
from snaccli.io.files import make_folder
from snaccli.training.codec import TrainedCodec, computes_in_bf16, fuse_layers, initial_model, scale_layers
from snaccli.training.config import TrainConfig
from snaccli.training.data.loader import Batch, Loader, SegmentSampler
from snaccli.training.discriminators import Adversary
from snaccli.training.launched import StopRequest
from snaccli.training.processes import Processes, StepNoise, generator
from snaccli.training.quantise import CodebookUsage, fit_codebooks
from snaccli.training.schedule import Schedule
from snaccli.training.state import (
    BEST,
    LAST,
    AveragedWeights,
    Report,
    Row,
    TrainingError,
    checked_count,
    cpu_copy,
    demand_tensors,
    load_optimizer,
    read_checkpoint,
    remove_leftovers,
    write_checkpoint,
)
from snaccli.training.validation import Progress, Validation

_LOG_EVERY = 10
_REVIVE, _FIT = 1, 2  # places of their own in the run's randomness


class Interrupted(KeyboardInterrupt):
    """The run was asked to stop, and has written its checkpoint.

    Attributes:
        problem: after which step of how many.
        remedy: ``Remedy.RESUME``.
        status: what the process returns to its caller, by the number of the signal.
    """

    remedy = Remedy.RESUME

    def __init__(self, problem: str, number: int) -> None:
        super().__init__(problem + self.remedy.value)
        self.problem = problem
        self.status = 128 + number


class Trainer:
    """A training run in a folder.

    There are ``last.pt`` (everything needed to resume), ``best.pt`` (the weights that validated best),
    ``baseline_metrics.json``, and what the reports write. Batch and noise of a step depend on the seed and
    the step alone, so that a run continued from its checkpoint equals the run uninterrupted, and one divided
    among processes equals one that is not, but for rounding.

    Args:
        config: of the run.
        folder: made if missing.
        processes: this one alone, or one of several.
        reports: told how it goes; on the main process only.

    Raises:
        SnacError: the configuration, the model or the data cannot be used.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: str | Path,
        processes: Processes | None = None,
        reports: Sequence[Report] = (),
    ) -> None:
        self.config = config
        self.folder = Path(folder)
        self.processes = processes or Processes("cpu")
        self.reports = list(reports) if self.processes.main else []
        if config.threads:
            torch.set_num_threads(config.threads)
        self.model = initial_model(config)
        self.rate = self.model.sampling_rate
        self.sampler = SegmentSampler(config.data.train, self.rate, config.augmentation, config.seed)
        self.schedule = Schedule(
            config.stages,
            self.sampler.samples,
            self.rate,
            self.model.config.pad_multiple,
            config.warmup_steps,
            config.decay,
            self.processes.count * config.accumulate,
        )
        if config.scale_layers:
            self._scale_layers()
        self.validation = Validation(config, self.rate, self.processes)
        self.progress = Progress(self.rate)
        bf16 = computes_in_bf16(config.precision, self.processes.device)
        self.codec = TrainedCodec(self.model, config.spectra, config.weights, bf16)
        if config.compile:
            fuse_layers(self.codec, self.processes.device)
        self._trained = self.processes.wrap(self.codec)
        self._parameters = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.optimizer = self._make_optimizer()
        self.adversary = Adversary(config, self.processes, bf16) if Adversary.wanted(config) else None
        self.average = AveragedWeights(self.model, config.ema) if config.ema else None
        self.usage = CodebookUsage(self.model.quantizer)
        codebooks = (level.codebook.weight for level in self.model.quantizer.levels())
        self._codebooks_learn = any(weight.requires_grad for weight in codebooks)
        self.step = 0
        self._stop = StopRequest()
        make_folder(self.folder)

    def _scale_layers(self) -> None:
        """Scales the layers of a fresh model of the published form, by audio that training does not see."""
        part = self.schedule.at(0)
        audio = torch.from_numpy(self.sampler.batch(self.schedule.steps, part.segment, part.batch).audio)
        scale_layers(self.model, audio, StepNoise(self.config.seed))

    def _make_optimizer(self) -> torch.optim.AdamW:
        """AdamW in two groups, the codewords last, at rates that :meth:`_train_step` sets."""
        config = self.config
        codewords = [level.codebook.weight for level in self.model.quantizer.levels()]
        chosen = {id(weight) for weight in codewords}
        rest = [weight for weight in self._parameters if id(weight) not in chosen]
        groups = [
            {"params": rest, "weight_decay": config.weight_decay},
            {"params": [weight for weight in codewords if weight.requires_grad], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.betas[0], config.betas[1]))

    def run(self, limit: int | None = None, stop: StopRequest | None = None) -> None:
        """Trains to the last step, or ``limit`` steps further; a checkpoint stands at the end.

        Args:
            limit: most steps to take now.
            stop: looked at after each step.

        Raises:
            TrainingError: the loss is no longer finite (the last checkpoint stands), or the disk is full.
            Interrupted: ``stop`` was set; the checkpoint is written.
        """
        if stop is not None:
            self._stop = stop
        end = self.schedule.steps if limit is None else min(self.schedule.steps, self.step + limit)
        started, since = time.monotonic(), self.step
        config = self.config
        loader = Loader(
            self.sampler,
            self.schedule,
            config.data.workers,
            self.processes.index,
            self.processes.count,
            processes=self.processes.device.type != "cpu",
        )
        try:
            if not self.progress.baseline:
                self._measure_baseline()
            while self.step < end:
                if self._codebooks_due():
                    self._fit_codebooks()
                losses, stopped = self._train_step(loader)
                self.step += 1
                if self.step % _LOG_EVERY == 0 or self.step == end:
                    pace = round((time.monotonic() - started) / (self.step - since), 3)
                    self._log(self._heading() | {"seconds_a_step": pace, **losses})
                self._revive()
                if self.schedule.validates(self.step, config.validate_every):
                    self._validate()
                if stopped or self.step % config.checkpoint_every == 0 or self.step == end:
                    self.save()
                if stopped:
                    raise Interrupted(self._where(), self._stop.number or 2)
        finally:
            loader.close()

    def _where(self) -> str:
        return f"stopped after step {self.step} of {self.schedule.steps}"

    def _heading(self) -> Row:
        rate = self.config.learning_rate * self.schedule.rate_factor(self.step - 1)
        return {"step": self.step, "stage": self.schedule.at(self.step - 1).index + 1, "learning_rate": rate}

    def _quantised(self) -> bool:
        return self.step >= self.config.unquantised_steps

    def _train_step(self, loader: Loader) -> tuple[dict[str, float], bool]:
        """One step of the optimiser; the mean losses of the whole batch, and whether to stop after it."""
        factor = self.schedule.rate_factor(self.step)
        rate = self.config.learning_rate * factor
        for group, of_group in zip(
            self.optimizer.param_groups, (1.0, self.config.codebook_rate), strict=True
        ):
            group["lr"] = rate * of_group
        self.optimizer.zero_grad(set_to_none=True)
        sums, indices, projected = self._gradients(loader(self.step))
        losses, stopped = self._agreed(sums)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self.config.clip))
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        if broken or not math.isfinite(norm):
            raise TrainingError(self._not_finite(broken or ["gradient"], loader))
        self.optimizer.step()
        if self.adversary is not None and "adversarial" in losses:
            self.adversary.step(factor, self.config.adversarial.learning_rate)
        if self.average is not None:
            self.average.update()
        if indices:
            gather = self.processes.gather
            self.usage.update([gather(part) for part in indices], [gather(part) for part in projected])
        values = {name: round(value, 5) for name, value in losses.items()}
        return {**values, "gradient_norm": round(norm, 3)}, stopped

    def _gradients(self, batch: Batch) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
        """Adds up the gradients of this process's batch, part by part; mean losses, codewords."""
        config = self.config
        share = 1 / config.accumulate
        audio, bandwidth = self._on_device(batch)
        pieces = list(zip(audio.chunk(config.accumulate), bandwidth.chunk(config.accumulate), strict=True))
        judged = self.adversary if self._quantised() and self.step >= config.adversarial.start else None
        sums: dict[str, Tensor] = {}
        chosen: list[tuple[list[Tensor], list[Tensor]]] = []
        first = self.processes.index * len(audio)
        for number, (piece, limits) in enumerate(pieces):
            last = number == len(pieces) - 1
            noise = StepNoise(config.seed, step=self.step, first_item=first)
            first += len(piece)
            with self.processes.adding_up(self._trained, last):
                losses, decoded, indices, projected = self._trained(piece, limits, noise, self._quantised())
                if judged is not None:
                    losses = losses | judged.judge(piece, decoded)
                total = sum(getattr(config.weights, name) * loss for name, loss in losses.items())
                assert isinstance(total, Tensor)
                (share * total).backward()  # type: ignore[no-untyped-call]
            if judged is not None:
                losses["discriminator"] = judged.learn(piece, decoded, share, last)
            for name, loss in {"loss": total, **losses}.items():
                sums[name] = sums.get(name, torch.zeros_like(loss)).detach() + share * loss.detach()
            chosen.append((indices, projected))
        joined = [
            [torch.cat(parts) for parts in zip(*side, strict=True)] for side in zip(*chosen, strict=True)
        ]
        return sums, joined[0], joined[1]

    def _on_device(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Audio (B, 1, T) and bandwidths (B,) where they are computed with."""
        parts = (
            torch.from_numpy(part).to(self.processes.device) for part in (batch.audio, batch.bandwidth_hz)
        )
        audio, bandwidth = parts
        return audio, bandwidth

    def _agreed(self, sums: dict[str, Tensor]) -> tuple[dict[str, float], bool]:
        """Means over the processes, and whether any of them was asked to stop."""
        stop = torch.tensor(float(bool(self._stop)), device=self.processes.device)
        values = self.processes.mean(torch.stack([*sums.values(), stop])).tolist()
        return dict(zip(sums, values, strict=False)), values[-1] > 0

    def _not_finite(self, broken: Sequence[str], loader: Loader) -> str:
        names = ", ".join(Path(name).name for name in loader.names(self.step)[:3])
        kept = self.folder / LAST
        stands = f"{kept} holds the last good state; " if kept.exists() else ""
        return (
            f"not finite at step {self.step}: {', '.join(broken)}, in a batch of {names}, ...; "
            f"{stands}resume with a lower learning_rate, or without that recording"
        )

    def _revive(self) -> None:
        every = self.config.revive_every
        if not (every and self._quantised() and self._codebooks_learn) or self.step % every:
            return
        perplexity = [round(value, 1) for value in self.usage.perplexity()]
        row: Row = {"step": self.step, "perplexity": perplexity}
        if not self.schedule.settling(self.step):
            row["revived"] = self.usage.revive(generator(self.config.seed, self.step, _REVIVE))
        self._log(row)

    def _codebooks_due(self) -> bool:
        due = self.step == self.config.unquantised_steps
        return due and (self.config.refit or not self._decoder_knows_codebooks())

    def _decoder_knows_codebooks(self) -> bool:
        """Whether there are codebooks already that the decoder was trained with: those of ``init``."""
        return self.step == 0 and bool(self.config.init)

    @torch.no_grad()
    def _fit_codebooks(self) -> None:
        if not self._codebooks_learn:
            return
        part = self.schedule.at(self.step)
        count = max(1, round(self.config.fit_seconds * self.rate / (part.batch * part.segment)))
        # Batch numbers past the last step: audio that training itself does not see in this order.
        numbers = range(self.schedule.steps, self.schedule.steps + count)
        batches = (self.sampler.batch(n, part.segment, part.batch) for n in numbers)
        latents = (self.codec.encode(self._on_device(batch)[0]) for batch in batches)
        drawn = generator(self.config.seed, self.step, _FIT)
        fitted = fit_codebooks(self.model.quantizer, latents, drawn, unit=not self._decoder_knows_codebooks())
        for level in self.model.quantizer.levels():
            self.processes.copy_from_main(level.codebook.weight)
        self.usage = CodebookUsage(self.model.quantizer)
        self._log({"step": self.step, "codebooks_fitted_to": fitted})

    def _measure_baseline(self) -> None:
        for segment in self.schedule.segments:
            metrics = self.validation(self.codec, segment, self._quantised())
            self.progress.baseline[str(segment)] = metrics
            self._log({"step": self.step, "baseline": metrics, "seconds": segment / self.rate})
        if self.processes.main:
            self.progress.write_baseline(self.folder)

    def _validate(self) -> None:
        segment = self.schedule.at(self.step - 1).segment
        with self._averaged():
            metrics = self.validation(self.codec, segment, self._quantised())
            better = self.progress.add(segment, metrics, self.step)
            if better and self.processes.main:
                state = {"step": self.step, "model": cpu_copy(self.model.state_dict()), "metrics": metrics}
                write_checkpoint(self.folder / BEST, state)
            improvement = self.progress.improvement(segment, metrics)
            self._log({"step": self.step, "validation": metrics, "improvement_percent": improvement})
            if self.reports:
                self._let_hear(segment)

    @torch.no_grad()
    def _let_hear(self, segment: int) -> None:
        examples, bandwidth = self._on_device(self.validation.examples(segment))
        _, decoded, *_ = self.codec(examples, bandwidth, StepNoise(0), self._quantised())
        for number, (was, now) in enumerate(zip(examples[:, 0], decoded[:, 0], strict=True)):
            for report in self.reports:
                report.audio(self.step, f"example {number}/decoded", now.cpu().numpy(), self.rate)
                report.audio(self.step, f"example {number}/original", was.cpu().numpy(), self.rate)

    def _averaged(self) -> AbstractContextManager[None]:
        return self.average.in_place() if self.average is not None else contextlib.nullcontext()

    def save(self) -> None:
        """Writes the checkpoint: whole, or not at all."""
        if self.processes.main:
            state: dict[str, Any] = {
                "step": self.step,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "counts": self.usage.counts,
                "recent": self.usage.recent,
                "progress": self.progress.state_dict(),
                "config": json.dumps(asdict(self.config)),
            }
            for name, part in (("average", self.average), ("adversary", self.adversary)):
                if part is not None:
                    state[name] = part.state_dict()
            write_checkpoint(self.folder / LAST, state)
        self.processes.wait()

    def resume(self) -> bool:
        """Takes up the folder's checkpoint; False where there is none.

        Raises:
            TrainingError: the checkpoint is damaged or of another model.
        """
        if self.processes.main:
            remove_leftovers(self.folder)
        state = read_checkpoint(self.folder / LAST)
        if state is None:
            return False
        try:
            step = checked_count(state["step"], "step")
            demand_tensors(state["model"], self.model.state_dict(), "the weights")
            self.model.load_state_dict(state["model"])
            load_optimizer(self.optimizer, state["optimizer"])
            for name, part in (("average", self.average), ("adversary", self.adversary)):
                if part is not None and name in state:
                    part.load_state_dict(state[name])
            self.usage.load(state["counts"], state["recent"])
            self.progress.load_state_dict(state["progress"])
            coming = {str(part.segment) for part in self.schedule.parts if part.first + part.steps > step}
            if self.progress.baseline and not coming <= self.progress.baseline.keys():
                raise ValueError("the baseline was measured on segments of other lengths")
            self.step = step
        except (LookupError, ValueError, TypeError, RuntimeError, AttributeError, ArithmeticError) as error:
            line = str(error).partition("\n")[0]
            raise TrainingError(
                f"{self.folder / LAST}: does not fit this configuration ({line}): choose another folder"
            ) from error
        return True

    def _log(self, row: Row) -> None:
        for report in self.reports:
            report.row(row)
