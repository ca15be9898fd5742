"""Which learned prior belongs to a model. Knows no torch."""

from __future__ import annotations

from pathlib import Path

from snac.hub.locate import cached
from snaccli.entropy.prior import Prior, load
from snaccli.errors import PriorError, Remedy

__all__ = ["PRIOR_NAME", "WantedPrior", "find_prior"]

PRIOR_NAME = "prior.safetensors"
WantedPrior = bool | str | Path | Prior
"""A prior or its file; True for that beside the model's weights, if there is one; False for none."""


def find_prior(wanted: WantedPrior, source: str | Path | None, model: str, fingerprint: str) -> Prior | None:
    """Returns the prior for a model, None where there is none.

    Args:
        wanted: see `WantedPrior`.
        source: the model, as `snac.hub.locate` takes it.
        model: its name, for messages.
        fingerprint: of its weights, 16 hex digits.

    Raises:
        PriorError: the prior cannot be read, or is of other weights.
    """
    path: Path | None = None
    if isinstance(wanted, Prior):
        prior = wanted
    elif isinstance(wanted, bool):
        files = cached(source) if wanted and source is not None else None
        path = None if files is None else files.weights.parent / PRIOR_NAME
        if path is None or not path.is_file():
            return None
        prior = load(path)
    else:
        path = Path(wanted)
        prior = load(path)
    if prior.model_fingerprint != fingerprint:
        raise PriorError(
            f"is a prior for the model {prior.model!r} of fingerprint {prior.model_fingerprint}, not for "
            f"{model!r} of {fingerprint}",
            path,
            remedy=Remedy.OTHER_PRIOR,
        )
    return prior
