"""Which learned prior belongs to a model. Knows no torch."""

from __future__ import annotations

from pathlib import Path

from snaccli.entropy.prior import Prior, load
from snaccli.errors import PriorError, Remedy

__all__ = ["WantedPrior", "find_prior"]

WantedPrior = bool | str | Path | Prior
"""A prior or its file; True for that beside the model's weights, if there is one; False for none."""


def find_prior(wanted: WantedPrior, beside: Path | None, model: str, fingerprint: str) -> Prior | None:
    """Returns the prior for a model, None where there is none.

    Args:
        wanted: see `WantedPrior`.
        beside: the prior's file beside the model's weights, None where there is none.
        model: its name, for messages.
        fingerprint: of its weights, 16 hex digits.

    Raises:
        PriorError: the prior cannot be read, or is of other weights.
    """
    path: Path | None
    if wanted is False or (wanted is True and beside is None):
        return None
    if isinstance(wanted, Prior):
        path, prior = None, wanted
    else:
        path = beside if isinstance(wanted, bool) else Path(wanted)
        assert path is not None
        prior = load(path)
    if prior.model_fingerprint != fingerprint:
        raise PriorError(
            f"is a prior for the model {prior.model!r} of fingerprint {prior.model_fingerprint}, not for "
            f"{model!r} of {fingerprint}",
            path,
            remedy=Remedy.OTHER_PRIOR,
        )
    return prior
