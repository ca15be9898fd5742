"""How good the model is: on recordings it does not learn from, beside what it was to begin with."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from snaccli.io.files import open_output
from snaccli.training.codec import TrainedCodec
from snaccli.training.config import LossWeights, TrainConfig
from snaccli.training.data.loader import Batch
from snaccli.training.data.sources import open_source, validation_segments
from snaccli.training.processes import Processes, StepNoise
from snaccli.training.state import checked_count

BASELINE = "baseline_metrics.json"
_AT_ONCE = 8  # segments

Metrics = dict[str, float]


class Validation:
    """Losses over the validation sets, without augmentation and always on the same segments.

    Args:
        config: names the sets, and the weights of the losses.
        rate: Hz.
        processes: among which the segments are divided.
    """

    def __init__(self, config: TrainConfig, rate: int, processes: Processes) -> None:
        self._sources = [open_source(path, "val", rate) for path in config.data.validation]
        self._count = config.data.validation_segments
        self._weights: LossWeights = config.weights
        self._processes = processes

    @torch.no_grad()
    def __call__(self, codec: TrainedCodec, segment: int, quantised: bool = True) -> Metrics:
        """Mean of each loss; ``loss`` is the weighted sum of those of the reconstruction.

        Args:
            codec: not wrapped.
            segment: samples.
            quantised: as in training.
        """
        codec.eval()
        sums: dict[str, torch.Tensor] = {}
        processes = self._processes
        total = self._count * len(self._sources)
        first, end = (total * (processes.index + more) // processes.count for more in (0, 1))
        segments = itertools.islice(validation_segments(self._sources, segment, self._count), first, end)
        done = first
        while some := list(itertools.islice(segments, _AT_ONCE)):
            batch = Batch.of(some)
            audio = torch.from_numpy(batch.audio).to(processes.device)  # B 1 T
            bandwidth = torch.from_numpy(batch.bandwidth_hz).to(processes.device)
            losses, *_ = codec(audio, bandwidth, StepNoise(0, first_item=done), quantised)
            for name, loss in losses.items():
                sums[name] = sums.get(name, torch.zeros(())) + len(audio) * loss.detach().cpu()
            done += len(audio)
        codec.train()
        reconstruction = self._weights.reconstruction()
        names = ["commitment", *(("codebook",) if quantised else ()), *reconstruction]
        parts = [float(sums.get(name, torch.zeros(()))) for name in names]
        values = processes.mean(
            torch.tensor([*parts, done - first], dtype=torch.float32, device=processes.device)
        )
        means = (values[:-1] / values[-1]).tolist()
        metrics = dict(zip(names, means, strict=True))
        weighted = sum(getattr(self._weights, name) * metrics[name] for name in reconstruction)
        return {"loss": round(weighted, 5), **{name: round(value, 5) for name, value in metrics.items()}}

    def examples(self, segment: int, count: int = 2) -> Batch:
        """The first ``count`` validation segments."""
        return Batch.of(list(validation_segments(self._sources[:1], segment, self._count))[:count])


@dataclass
class Progress:
    """Validation over a run: by segment length the baseline, the last and the best; and the best of all.

    The best is that with the greatest improvement over its baseline, so that stages with segments of other
    lengths compare.
    """

    rate: int
    baseline: dict[str, Metrics] = field(default_factory=dict)
    last: dict[str, Metrics] = field(default_factory=dict)
    best: dict[str, Metrics] = field(default_factory=dict)
    best_ratio: float = float("inf")
    best_step: int = 0

    def add(self, segment: int, metrics: Metrics, step: int) -> bool:
        """Takes a validation into account; whether it is the best so far."""
        key = str(segment)
        self.last[key] = metrics
        if key not in self.best or metrics["loss"] < self.best[key]["loss"]:
            self.best[key] = metrics
        ratio = metrics["loss"] / max(self.baseline[key]["loss"], 1e-9)
        if ratio >= self.best_ratio:
            return False
        self.best_ratio, self.best_step = ratio, step
        return True

    def improvement(self, segment: int, metrics: Metrics) -> float:
        """Per cent by which the loss is below its baseline."""
        before = max(self.baseline[str(segment)]["loss"], 1e-9)
        return round(100 * (1 - metrics["loss"] / before), 2)

    def write_baseline(self, folder: Path) -> None:
        """Writes baseline_metrics.json: a row a segment length."""
        rows = [
            {"segment": int(key), "seconds": int(key) / self.rate, "metrics": metrics}
            for key, metrics in self.baseline.items()
        ]
        with open_output(folder / BASELINE, overwrite=True) as out:
            out.write((json.dumps({"stages": rows}, indent=2) + "\n").encode())

    def table(self) -> list[dict[str, Any]]:
        """A row a segment length: loss to begin with, at last, at best, improvement in per cent."""
        rows = []
        for key, metrics in self.baseline.items():
            last, best = self.last.get(key), self.best.get(key)
            if last is None or best is None:
                continue
            rows.append(
                {
                    "seconds": round(int(key) / self.rate, 3),
                    "baseline": metrics,
                    "last": last,
                    "best": best,
                    "improvement_percent": self.improvement(int(key), best),
                }
            )
        return rows

    def state_dict(self) -> str:
        """All of it as JSON."""
        return json.dumps({name: value for name, value in vars(self).items() if name != "rate"})

    def load_state_dict(self, text: str) -> None:
        """Takes up what :meth:`state_dict` gave.

        Raises:
            ValueError: it is something else.
        """
        found = json.loads(text)
        if found.keys() != vars(self).keys() - {"rate"}:
            raise ValueError("the progress has other parts")
        for name, value in found.items():
            own = getattr(self, name)
            if type(value) is not type(own) or (isinstance(value, dict) and not _are_metrics(value)):
                raise ValueError(f"{name} of the progress is of another type")
            setattr(self, name, value)
        checked_count(self.best_step, "the best step")


def _are_metrics(found: dict[str, Any]) -> bool:
    """Whether these are metrics by lengths of segments, the loss among them."""
    return all(
        re.fullmatch("[1-9][0-9]{0,14}", key)
        and isinstance(metrics, dict)
        and "loss" in metrics
        and all(type(value) is float or value == 0 for value in metrics.values())
        for key, metrics in found.items()
    )
