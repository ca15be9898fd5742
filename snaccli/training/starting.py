"""The model a run starts from, and which of its weights are trained."""

from __future__ import annotations

import difflib
from pathlib import Path

import torch

from snac.nn.model import SNAC
from snaccli.errors import UsageError
from snaccli.training.config import TrainConfig
from snaccli.training.lowband import CHANNELS, LowBandPath


def initial_model(config: TrainConfig) -> SNAC:
    """The model of the configuration, in training mode on the CPU, frozen parts frozen.

    Raises:
        UsageError: ``model`` and ``init`` contradict each other, or a part to freeze does not exist.
        ModelError: the model of ``init`` cannot be had.
    """
    torch.manual_seed(config.seed)
    if config.init:
        model = SNAC.from_pretrained(config.init)
        if config.model is not None and config.model != model.config:
            ours, theirs = config.model.to_dict(), model.config.to_dict()
            name = next(name for name in ours if ours[name] != theirs[name])
            raise UsageError(
                f"training configuration: [model] has {name} {ours[name]}, but {config.init} has "
                f"{theirs[name]}: leave [model] out to train that one on"
            )
    else:
        assert config.model is not None
        model = SNAC.from_model_config(config.model)
    freeze(model, config.freeze)
    if config.init and (Path(config.init) / CHANNELS).exists():
        LowBandPath.read(config.init).hold(model)
    return model.train()


def freeze(model: SNAC, parts: tuple[str, ...]) -> None:
    """Lets the parts keep their weights; a part is a module's path, as ``encoder`` or ``decoder.model.0``.

    Raises:
        UsageError: there is no such part, or nothing is left to train.
    """
    for part in parts:
        chosen = [
            parameter
            for name, parameter in model.named_parameters()
            if name == part or name.startswith(f"{part}.")
        ]
        if not chosen:
            near = difflib.get_close_matches(part, [name for name, _ in model.named_modules()], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; there are encoder, quantizer and decoder"
            raise UsageError(f"training configuration: freeze: no part {part!r} in the model{hint}")
        for parameter in chosen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError("training configuration: freeze leaves nothing to train")
