"""Which tensors a model has, and of which shapes, by its configuration alone. Knows no torch."""

from __future__ import annotations

from snac.config import ATTENTION_HEAD, ModelConfig, SpectralConfig, Stack, WaveformConfig
from snac.spectrum import TAPS

Shapes = dict[str, tuple[int, ...]]

_KERNEL = 7  # taps of the convolutions that keep the rate
_UNITS = 3  # residual units a block


def state_shapes(config: ModelConfig) -> Shapes:
    """The names and shapes of a model's state dict in the published form."""
    if isinstance(config, SpectralConfig):
        encoder, decoder = _spectral(config)
    else:
        assert isinstance(config, WaveformConfig)
        encoder, decoder = _encoder(config), _decoder(config)
    return {**_within("encoder", encoder), **_quantizer(config), **_within("decoder", decoder)}


def _within(name: str, shapes: Shapes) -> Shapes:
    return {f"{name}.{key}": shape for key, shape in shapes.items()}


def _convolution(inputs: int, outputs: int, kernel: int, groups: int = 1, *, bias: bool = True) -> Shapes:
    """A convolution with weight norm."""
    return _normed((outputs, inputs // groups, kernel), outputs if bias else 0)


def _normed(weight: tuple[int, int, int], biases: int) -> Shapes:
    weights: Shapes = {
        "parametrizations.weight.original0": (weight[0], 1, 1),
        "parametrizations.weight.original1": weight,
    }
    return {"bias": (biases,), **weights} if biases else weights


def _snake(channels: int) -> Shapes:
    return {"alpha": (1, channels, 1)}


def _sequence(name: str, layers: list[Shapes]) -> Shapes:
    return {f"{name}.{i}.{key}": shape for i, layer in enumerate(layers) for key, shape in layer.items()}


def _unit(channels: int, groups: int) -> Shapes:
    dilated, pointwise = (
        _convolution(channels, channels, _KERNEL, groups),
        _convolution(channels, channels, 1),
    )
    return _sequence("block", [_snake(channels), dilated, _snake(channels), pointwise])


def _attention(channels: int) -> Shapes:
    return {
        "norm.weight": (channels,),
        "norm.bias": (channels,),
        "to_qkv.weight": (3 * channels, channels),
        "rel_pos.inv_freq": (ATTENTION_HEAD // 2,),
        "to_out.weight": (channels, channels),
    }


def _encoder(config: WaveformConfig) -> Shapes:
    width = config.encoder_dim
    layers = [_convolution(1, width, _KERNEL)]
    for stride in config.encoder_rates:
        units = [_unit(width, width if config.depthwise else 1)] * _UNITS
        down = _convolution(width, 2 * width, 2 * stride)
        layers.append(_sequence("block", [*units, _snake(width), down]))
        width *= 2
    if config.attn_window_size is not None:
        layers.append(_attention(width))
    layers.append(_convolution(width, width, _KERNEL, width if config.depthwise else 1))
    return _sequence("block", layers)


def _decoder(config: WaveformConfig) -> Shapes:
    latent, width = config.latent_channels, config.decoder_dim
    if config.depthwise:
        layers = [_convolution(latent, latent, _KERNEL, latent), _convolution(latent, width, 1)]
    else:
        layers = [_convolution(latent, width, _KERNEL)]
    if config.attn_window_size is not None:
        layers.append(_attention(width))
    for stride in config.decoder_rates:
        up = _normed((width, width // 2, 2 * stride), width // 2)
        block = [_snake(width), up]
        width //= 2
        if config.noise:
            block.append(_within("linear", _convolution(width, width, 1, bias=False)))
        block += [_unit(width, width if config.depthwise else 1)] * _UNITS
        layers.append(_sequence("block", block))
    layers += [_snake(width), _convolution(width, 1, _KERNEL)]
    return _sequence("model", layers)


def _quantizer(config: ModelConfig) -> Shapes:
    level = {
        **_within("in_proj", _convolution(config.latent_channels, config.codebook_dim, 1)),
        **_within("out_proj", _convolution(config.codebook_dim, config.latent_channels, 1)),
        "codebook.weight": (config.codebook_size, config.codebook_dim),
    }
    return _sequence("quantizer.quantizers", [level] * len(config.vq_strides))


def _spectral(config: SpectralConfig) -> tuple[Shapes, Shapes]:
    encoder = _stack(config.features, config.encoder)
    decoder = _stack(config.latent_dim, config.decoder)
    project = _linear(config.encoder.dim, config.latent_dim)
    head = _linear(config.decoder.dim, 2 * config.bins)
    return {**encoder, **_within("project", project)}, {**decoder, **_within("head", head)}


def _stack(inputs: int, size: Stack) -> Shapes:
    block: Shapes = {
        "scale": (size.dim,),
        "depthwise.weight": (size.dim, 1, TAPS),
        "depthwise.bias": (size.dim,),
        **_within("norm", _norm(size.dim)),
        **_within("expand", _linear(size.dim, size.hidden)),
        **_within("contract", _linear(size.hidden, size.dim)),
    }
    return {
        "embed.weight": (size.dim, inputs, TAPS),
        "embed.bias": (size.dim,),
        **_within("norm", _norm(size.dim)),
        **_sequence("blocks", [block] * size.blocks),
        **_within("final_norm", _norm(size.dim)),
    }


def _norm(channels: int) -> Shapes:
    return {"weight": (channels,), "bias": (channels,)}


def _linear(inputs: int, outputs: int) -> Shapes:
    return {"weight": (outputs, inputs), "bias": (outputs,)}
