"""A path for the waveform of the low band through a model that was trained on spectra.

Spectrogram losses teach envelopes long before pitch: phases are free, and it takes very many steps until a
decoder makes up its own. A few channels of each rate can be given away for a start that has pitch. They
become a cascade of small modified discrete cosine transforms, which has the very shape of SNAC's strided
convolutions; the decoder gets the inverse, and the finest codebook quantises the lowest coefficients.
Training then goes on from there with the encoder's side of the path held as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from snac.nn.layers import EncoderBlock, NoiseBlock
from snac.nn.model import SNAC
from snaccli.errors import UsageError
from snaccli.training.quantise import spherical_kmeans

CHANNELS = "low_band.json"
"""Where a model folder keeps the channels of its path."""

_LINEAR = 0.02  # alpha at which a snake hardly bends signals in -1 to 1
_NONE = 1e-7  # stands for no weight: weight normalisation asks for a direction


def lapped_transform(bands: int) -> Tensor:
    """Rows of the modified discrete cosine transform with a sine window, (bands, 2 bands).

    With hops of ``bands`` samples its transpose inverts it (Princen and Bradley 1986, "Analysis/synthesis
    filter bank design based on time domain aliasing cancellation").
    """
    n = torch.arange(2 * bands, dtype=torch.float64)
    k = torch.arange(bands, dtype=torch.float64)[:, None]
    window = torch.sin(math.pi * (n + 0.5) / (2 * bands))
    basis = torch.cos(math.pi / bands * (n + 0.5 + bands / 2) * (k + 0.5))
    return (math.sqrt(2 / bands) * window * basis).float()


def bands_below(frequency: float, rate: int, strides: Sequence[int]) -> list[int]:
    """How many bands of each rate, full to latent, a cascade needs for what lies below ``frequency`` Hz."""
    counts, width = [1], rate / 2
    for stride in strides:
        width /= stride
        counts.append(min(math.ceil(frequency / width), counts[-1] * stride))
    return counts


def _split(parents: int, stride: int, kept: int) -> Iterator[tuple[int, int, int]]:
    """(band, its parent, its row of the transform) of the lowest ``kept`` bands after one more split."""
    for parent in range(parents):
        for row in range(stride):
            # Decimation turns every odd band's spectrum round.
            band = parent * stride + (row if parent % 2 == 0 else stride - 1 - row)
            if band < kept:
                yield band, parent, row


@dataclass(frozen=True)
class LowBandPath:
    """Where the path runs.

    Attributes:
        encoder, decoder: its channels at each rate, full rate to latent rate, in order of frequency. The
            decoder's last are those after its first convolutions.
    """

    encoder: tuple[tuple[int, ...], ...]
    decoder: tuple[tuple[int, ...], ...]

    @classmethod
    def least_used(cls, model: SNAC, below: float = 1100.0) -> LowBandPath:
        """A path through the channels that the layers behind them listen to least.

        Args:
            model: trained; depthwise, without attention, with the same strides up and down.
            below: Hz.

        Raises:
            UsageError: the model is of another kind.
        """
        config = model.config
        mirrored = tuple(reversed(config.decoder_rates)) == tuple(config.encoder_rates)
        if not config.depthwise or config.attn_window_size is not None or not mirrored:
            raise UsageError("the low-band path needs a depthwise model without attention and equal strides")
        counts = bands_below(below, config.sampling_rate, config.encoder_rates)
        *coarse, _ = model.quantizer.levels()
        heard = [block.block[-1].weight.abs().sum((0, 2)) for block in _down(model)]
        heard.append(torch.stack([_use(level.in_proj) for level in coarse]).sum(0))
        said = [_use(model.decoder.model[-2])]
        said += [block.block[1].weight.abs().sum((1, 2)) for block in reversed(_up(model))]
        return cls(
            tuple(tuple(use.argsort()[:n].tolist()) for use, n in zip(heard, counts, strict=True)),
            tuple(tuple(use.argsort()[:n].tolist()) for use, n in zip(said, counts, strict=True)),
        )

    @classmethod
    def read(cls, folder: str | Path) -> LowBandPath:
        """The path of a model folder.

        Raises:
            UsageError: the folder has none, or it is damaged.
        """
        path = Path(folder) / CHANNELS
        try:
            sides = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                *(tuple(tuple(map(int, rate)) for rate in sides[side]) for side in ("encoder", "decoder"))
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: no low-band path: make one with examples/train/low_band.py") from error

    def write(self, folder: str | Path) -> None:
        """Keeps the path beside the model."""
        sides = {"encoder": self.encoder, "decoder": self.decoder}
        (Path(folder) / CHANNELS).write_text(json.dumps(sides) + "\n", encoding="utf-8")

    @torch.no_grad()
    def build(self, model: SNAC) -> None:
        """Overwrites the channels with the transforms, and takes them out of all other layers' hearing."""
        self._build_encoder(model)
        self._build_decoder(model)

    def _build_encoder(self, model: SNAC) -> None:
        path, layers = self.encoder, list(model.encoder.block)
        _pass_through(layers[0], path[0], [0])
        for block, here, below in zip(_down(model), path, path[1:], strict=False):
            *units, snake, down = block.block
            for unit in units:
                _leave_out(unit.block[-1], here)
            snake.alpha[:, here] = _LINEAR
            basis = lapped_transform(down.stride[0])
            weight = down.weight.clone()
            weight[:, here] = 0
            weight[list(below)] = 0
            for band, parent, row in _split(len(here), down.stride[0], len(below)):
                weight[below[band], here[parent]] = basis[row]
            _assign(down, weight, below)
        _pass_through(layers[-1], path[-1], [0] * len(path[-1]))
        *coarse, _ = model.quantizer.levels()
        for level in coarse:
            hears: Any = level.in_proj
            says: Any = level.out_proj
            weight = hears.weight.clone()
            weight[:, path[-1]] = 0
            _assign(hears, weight)
            weight = says.weight.clone()
            weight[list(path[-1])] = 0
            _assign(says, weight, path[-1])

    def _build_decoder(self, model: SNAC) -> None:
        path, latents = self.decoder, self.encoder[-1]
        layers = list(model.decoder.model)
        _pass_through(layers[0], latents, [0] * len(latents))
        mixing: Any = layers[1]
        weight = mixing.weight.clone()
        weight[:, latents] = 0
        _assign(mixing, weight)
        _pass_through(mixing, path[-1], latents)
        for block, here, above in zip(_up(model), path[::-1], path[-2::-1], strict=False):
            snake, up, *rest = block.block
            snake.alpha[:, here] = _LINEAR
            basis = lapped_transform(up.stride[0])
            weight = up.weight.clone()
            weight[list(here)] = 0
            weight[:, above] = 0
            for band, parent, row in _split(len(above), up.stride[0], len(here)):
                weight[here[band], above[parent]] = basis[row]
            _assign(up, weight)
            up.bias[list(above)] = 0
            for layer in rest:
                _leave_out(layer.linear if isinstance(layer, NoiseBlock) else layer.block[-1], above)
        ending: list[Any] = layers[-3:-1]
        snake, last = ending
        snake.alpha[:, path[0]] = _LINEAR
        weight = last.weight.clone()
        weight[0, path[0]] = 0
        weight[0, path[0], weight.shape[-1] // 2] = 1
        _assign(last, weight)

    @torch.no_grad()
    def fit(
        self, model: SNAC, low: Sequence[Tensor], audio: Iterable[Tensor], generator: torch.Generator
    ) -> None:
        """Makes the finest level a quantiser of the path's latents.

        Its projection are the principal components of the low band, scaled to lie between their own and equal
        power; the search sees directions only, so that a constant beside them lets it tell loudness too.

        Args:
            model: with the path built in.
            low: batches (B, 1, T) of low-passed audio, for the components.
            audio: batches (B, 1, T), for the codewords.
            generator: of the codewords' start.
        """
        *_, level = model.quantizer.levels()
        conv_in: Any = level.in_proj
        conv_out: Any = level.out_proj
        path, size = list(self.encoder[-1]), min(level.codebook_dim - 1, len(self.encoder[-1]))
        latents = torch.cat([model.encoder(wave)[:, path].transpose(1, 2).flatten(0, 1) for wave in low])
        norms = latents.norm(dim=1)
        loud = latents[norms > 0.3 * norms.median()]
        power, vectors = torch.linalg.eigh(loud.t() @ loud / len(loud))
        power, vectors = power.flip(0)[:size].clamp(min=1e-9), vectors.flip(1)[:, :size]
        scale = (power / power[0]) ** -0.25
        scale = scale / (loud @ (vectors * scale)).square().mean().sqrt()
        weight = torch.zeros_like(conv_in.weight)
        weight[:size, path, 0] = (vectors * scale).t()
        _assign(conv_in, weight)
        conv_in.bias.zero_()
        conv_in.bias[-1] = 0.5 * float((loud @ (vectors * scale)).norm(dim=1).median())
        weight = torch.zeros_like(conv_out.weight)
        weight[path, :size, 0] = vectors / scale
        _assign(conv_out, weight)
        conv_out.bias.zero_()
        points = [level.project(model.encoder(wave)).transpose(1, 2).flatten(0, 1) for wave in audio]
        words = spherical_kmeans(torch.cat(points), level.codebook_size, generator)
        level.codebook.weight.copy_(words)

    def hold(self, model: SNAC) -> None:
        """Keeps the encoder's side of the path, the finest level with it, as it is in training."""
        layers = [model.encoder.block[0], *(block.block[-1] for block in _down(model))]
        for conv, rows in zip(layers, self.encoder, strict=True):
            _hold_rows(conv, rows)
        _hold_rows(model.encoder.block[-1], self.encoder[-1])
        for block, rows in zip(_down(model), self.encoder, strict=False):
            *units, snake, _ = block.block
            snake.alpha.register_hook(_without(rows, dim=1))
            for unit in units:
                _hold_rows(unit.block[-1], rows)
        *coarse, fine = model.quantizer.levels()
        for level in coarse:
            _hold_rows(level.out_proj, self.encoder[-1])
        fine.requires_grad_(False)


@torch.no_grad()
def with_codebook_dim(model: SNAC, codebook_dim: int) -> SNAC:
    """A copy of a model with wider codewords; what is added is zero, and changes nothing."""
    wide = SNAC.from_model_config(replace(model.config, codebook_dim=codebook_dim))
    state, wanted = model.state_dict(), wide.state_dict()
    for name, values in state.items():
        grown = _NONE * torch.randn_like(wanted[name]) if values.shape != wanted[name].shape else values
        grown[tuple(slice(size) for size in values.shape)] = values
        state[name] = grown
    wide.load_state_dict(state)
    return wide.eval()


def _down(model: SNAC) -> list[Any]:
    return [layer for layer in model.encoder.block if isinstance(layer, EncoderBlock)]


def _up(model: SNAC) -> list[Any]:
    return list(model.decoder.blocks())


def _use(conv: Any) -> Tensor:
    """How much a convolution listens to each of its inputs."""
    use: Tensor = conv.weight.detach().abs().sum((0, 2))
    return use


def _assign(conv: Any, weight: Tensor, unbiased: Sequence[int] = ()) -> None:
    """Sets a weight-normalised convolution's weight, and the bias of some rows to zero."""
    conv.weight = weight + _NONE * torch.randn_like(weight)
    if conv.bias is not None:
        conv.bias[list(unbiased)] = 0


def _pass_through(conv: Any, rows: Sequence[int], inputs: Sequence[int]) -> None:
    """Makes each of some outputs a copy of one input."""
    weight = conv.weight.clone()
    weight[list(rows)] = 0
    weight[list(rows), list(inputs), weight.shape[-1] // 2] = 1
    _assign(conv, weight, rows)


def _leave_out(pointwise: Any, path: Sequence[int]) -> None:
    """A product that neither hears the path's channels nor adds to them."""
    weight = pointwise.weight.clone()
    weight[list(path)] = 0
    weight[:, path] = 0
    _assign(pointwise, weight, path)


def _hold_rows(conv: nn.Module, rows: Sequence[int]) -> None:
    for parameter in conv.parameters():
        parameter.register_hook(_without(rows, dim=0))  # type: ignore[no-untyped-call]


def _without(rows: Sequence[int], dim: int) -> Any:
    """A hook that lets no gradient through to some rows."""

    def hook(gradient: Tensor) -> Tensor:
        return gradient.index_fill(dim, torch.tensor(rows, device=gradient.device), 0.0)

    return hook
