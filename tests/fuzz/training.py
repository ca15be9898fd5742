"""Checkpoints of training runs: ``last.pt``, and what ``snac prior train`` keeps to go on from."""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from snaccli.codes import Codes
from snaccli.training import corpus, prior
from snaccli.training.loop import Trainer
from snaccli.training.state import LAST
from tests.fuzz import mutate
from tests.fuzz.cases import Case, promise
from tests.fuzz.checkpoints import changed_archive
from tests.fuzz.originals import SPECTRAL
from tests.training_runs import make_config, pack

STATE = "state.pt"


class TrainingCheckpoints:
    """See :class:`tests.fuzz.cases.Kind`."""

    name = "training-checkpoint"
    seconds = 0.001
    memory = 200.0

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        folder.mkdir(parents=True, exist_ok=True)
        config = make_config(pack(folder / "tones.npy"), model=SPECTRAL | {"codebook_size": 32}, ema=0.9)
        self._trainer = Trainer(config, folder / "run")
        self._trainer.run(limit=3)
        rng = np.random.default_rng(0)
        levels = tuple(rng.integers(0, 9, (1, 64 // stride)).astype(np.uint16) for stride in (2, 1))
        self._grids = [Codes(levels, (2, 1), 9)]
        self._books = [rng.standard_normal((9, 2)).astype(np.float32) for _ in levels]
        self._prior = prior.PriorConfig(steps=2, width=2, hidden=4, out=2, batch=8)
        self._run = folder / "run"
        run = prior._Run(self._net(), corpus.Corpus(self._grids), self._prior, folder / STATE)
        run.step()
        run.keep()
        kept = torch.load(folder / STATE, weights_only=True)
        torch.save(kept | {"seconds": 0.0}, folder / STATE)
        self._originals = [{LAST: (self._run / LAST).read_bytes()}, {STATE: (folder / STATE).read_bytes()}]

    def _net(self) -> prior.PriorNet:
        return prior.PriorNet(self._books, (2, 1), self._prior)

    def case(self, rng: Random) -> Case:
        """See :class:`tests.fuzz.cases.Kind`."""
        origin = rng.randrange(len(self._originals))
        ((name, data),) = self._originals[origin].items()
        way = rng.randrange(3)
        if way == 0:
            return Case({name: mutate.mutated(rng, data)}, "bytes", origin)
        if way == 1:
            return Case({name: changed_archive(rng, data)}, "the archive's members", origin, repaired=True)
        state = torch.load(io.BytesIO(data), weights_only=True)
        out = io.BytesIO()
        torch.save(_changed(rng, state), out)
        return Case({name: out.getvalue()}, "values", origin, repaired=True)

    def run(self, case: Case, folder: Path, rng: Random) -> str:
        """See :class:`tests.fuzz.cases.Kind`."""
        if STATE in case.files:
            trained = prior.train_prior(
                self._grids,
                self._grids,
                self._books,
                model="tiny",
                fingerprint="00" * 8,
                config=self._prior,
                state=folder / STATE,
            )
            promise(trained.strides == (2, 1), "a prior of other strides")
            return "trained on"
        trainer = self._trainer
        trainer.folder = self._run
        trainer.resume()  # whatever the last case left
        trainer.folder = folder
        promise(trainer.resume(), "a checkpoint that is there is passed over")
        if rng.random() < 0.3:
            trainer.run(limit=1)
            return "trained on"
        return "resumed"


def _changed(rng: Random, state: Any) -> Any:
    """A state with one value changed, somewhere within."""
    if isinstance(state, dict) and state and rng.random() < 0.95:
        state = dict(state)
        key = rng.choice(list(state))
        if rng.random() < 0.1:
            del state[key]
        else:
            state[key] = _changed(rng, state[key])
        return state
    if isinstance(state, (list, tuple)) and len(state) and rng.random() < 0.9:
        rows = list(state)
        at = rng.randrange(len(rows))
        rows[at] = _changed(rng, rows[at])
        return type(state)(rows)
    if isinstance(state, torch.Tensor) and rng.random() < 0.8:
        odd = (
            state.flatten()[:0],
            state.flatten(),
            state.to(torch.float16),
            state.long(),
            torch.zeros(3),
            state * 1e30,
        )
        return rng.choice(
            (*odd, torch.full_like(state, float("nan")) if state.is_floating_point() else state - 1)
        )
    if isinstance(state, str) and state.startswith("{"):
        return json.dumps(mutate.mutated_value(rng, json.loads(state)))
    return rng.choice((None, -1, 1 << 40, "x", [], {}, 0.5, float("nan"), torch.zeros(2)))
