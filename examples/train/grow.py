"""Makes a spectral model larger without changing what it does, so that training can go on from there.

    python examples/train/grow.py MODEL OUT [--linear-bins N] [--decoder-blocks N] [--encoder-blocks N]
        [--running-phases] [--phase-bins N]

The encoder sees N bins of the spectrum as they are, beside the mel bands, through weights that begin at
zero; new blocks stand behind the others of their stack, and their last layer begins at zero. With
--running-phases phases run on from frame to frame: there the audio does change, for all phases are to be
learned anew. With --phase-bins the encoder also sees the waveform of the N lowest bins, through weights that
begin small: there codes change a little. Needs the package installed.
"""

from __future__ import annotations

import argparse
import dataclasses
import math

import torch
from torch import Tensor, nn

from snac.config import SpectralConfig
from snac.nn.model import SNAC


def grow(model: SNAC, linear_bins: int, encoder_blocks: int, decoder_blocks: int) -> SNAC:
    """A larger model whose codes and audio are those of ``model``.

    Raises:
        SystemExit: the model is not of the spectral form, or is larger than what was asked for.
    """
    config = model.config
    if not isinstance(config, SpectralConfig):
        raise SystemExit("only models of the spectral form can be grown")
    larger = dataclasses.replace(
        config,
        linear_bins=linear_bins,
        encoder=dataclasses.replace(config.encoder, blocks=encoder_blocks),
        decoder=dataclasses.replace(config.decoder, blocks=decoder_blocks),
    )
    stacks = ((config.encoder, larger.encoder), (config.decoder, larger.decoder))
    moved = config.phase_bins and linear_bins != config.linear_bins  # inputs that stand behind these
    if moved or linear_bins < config.linear_bins or any(new.blocks < old.blocks for old, new in stacks):
        raise SystemExit("a model can be grown, not shrunk")
    grown = SNAC.from_model_config(larger)
    state = _widened(model, grown)
    for stack, (old, new) in zip(("encoder", "decoder"), stacks, strict=True):
        for block in range(old.blocks, new.blocks):
            for part in ("weight", "bias"):
                state[f"{stack}.blocks.{block}.contract.{part}"].zero_()
    grown.load_state_dict(state)
    return grown


def _widened(model: SNAC, larger: SNAC) -> dict[str, Tensor]:
    """The weights of ``larger`` with those of ``model`` in them; further inputs and outputs have 0."""
    state: dict[str, Tensor] = dict(larger.state_dict())
    for name, weight in model.state_dict().items():
        if weight.shape == state[name].shape:
            state[name] = weight
        else:  # the encoder's first convolution, the decoder's last layer
            state[name].zero_()
            state[name][tuple(map(slice, weight.shape))] = weight
    return state


@torch.no_grad()
def with_running_phases(model: SNAC) -> SNAC:
    """The same model with phases that run on, which begin near those of windows with all tones in step.

    What the head had learned of phases counts from 0 in each frame and is scaled down to a tenth; a random
    part of each bin's keeps them from adding up to clicks.
    """
    config = model.config
    assert isinstance(config, SpectralConfig)
    running = SNAC.from_model_config(dataclasses.replace(config, running_phases=True))
    running.load_state_dict(model.state_dict())
    head, bins = running.get_submodule("decoder.head"), config.bins
    assert isinstance(head, nn.Linear)
    head.weight[bins:] *= 0.1
    # Phases count from the window's start, where tones in step at its middle are by turns 0 and pi.
    in_step = math.pi * (torch.arange(bins) % 2)
    head.bias[bins:] = in_step + math.pi * (
        torch.rand(bins, generator=torch.Generator().manual_seed(0)) - 0.5
    )
    return running


@torch.no_grad()
def with_phase_bins(model: SNAC, count: int) -> SNAC:
    """The same model that sees the waveform of so many bins and can give their phases as directions.

    The weights of the new inputs begin at random, not at zero: the decoder learns to draw on what is there.
    """
    config = model.config
    assert isinstance(config, SpectralConfig)
    if config.phase_bins:
        raise SystemExit("the model has phase_bins already")
    seeing = SNAC.from_model_config(dataclasses.replace(config, phase_bins=count))
    state = _widened(model, seeing)
    inputs = state["encoder.embed.weight"][:, config.features :]
    old = state["encoder.embed.weight"][:, : config.features]
    inputs.copy_(torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0)) * 1.5 * old.std())
    seeing.load_state_dict(state)
    return seeing


def main() -> None:
    """Reads the command line, grows the model, and writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a folder, or whatever SNAC.from_pretrained takes")
    parser.add_argument("out", help="folder of the larger model")
    parser.add_argument("--linear-bins", type=int)
    parser.add_argument("--encoder-blocks", type=int)
    parser.add_argument("--running-phases", action="store_true")
    parser.add_argument("--phase-bins", type=int, default=0)
    parser.add_argument("--decoder-blocks", type=int)
    options = parser.parse_args()
    model = SNAC.from_pretrained(options.model)
    if not isinstance(model.config, SpectralConfig):
        raise SystemExit(f"{options.model}: only models of the spectral form can be grown")
    wanted = (options.linear_bins, options.encoder_blocks, options.decoder_blocks)
    present = (model.config.linear_bins, model.config.encoder.blocks, model.config.decoder.blocks)
    torch.manual_seed(0)
    sizes = [have if want is None else want for want, have in zip(wanted, present, strict=True)]
    grown = grow(model, *sizes)
    if options.running_phases:
        grown = with_running_phases(grown)
    if options.phase_bins:
        grown = with_phase_bins(grown, options.phase_bins)
    grown.save_pretrained(options.out)


if __name__ == "__main__":
    main()
