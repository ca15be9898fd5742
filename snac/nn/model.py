"""The SNAC model: audio to codes at several time scales, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snac.config import ModelConfig, SpectralConfig, WaveformConfig
from snac.errors import InputTypeError, InputValueError
from snac.hub.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from snac.hub.state import fingerprint
from snac.nn.layers import FRESH, Decoder, Encoder, SeededNoise, traced
from snac.nn.spectral import SpectralDecoder, SpectralEncoder
from snac.nn.vq import ResidualVectorQuantize

if TYPE_CHECKING:
    from snac.engine.torch_chain import FoldedModel


class SNAC(nn.Module):
    """Multi-scale neural audio codec (Siuzdak, Grötschla, Lanzendörfer 2024, arXiv 2410.14411).

    A drop-in for the class of the published ``snac`` package: the same arguments, attributes, state-dict
    keys and results. Two things differ: outside training the decoder's noise is the same at every call
    (see ``decode``), and a configuration that cannot work is refused when the model is made.

    Args:
        sampling_rate: Hz of the audio the model codes.
        encoder_dim: channels of the encoder at the full rate; doubled by each of its strides.
        encoder_rates: strides of the encoder; their product is ``hop_length``.
        latent_dim: channels of the latents; None for ``encoder_dim * 2 ** len(encoder_rates)``.
        decoder_dim: channels of the decoder at the latent rate; halved by each of its rates.
        decoder_rates: upsampling of the decoder, of the same product.
        attn_window_size: latent frames of the attention windows, None for no attention.
        codebook_size: codewords a codebook.
        codebook_dim: channels a codeword.
        vq_strides: latent frames a token of each level, coarse to fine.
        noise: whether the decoder has noise blocks.
        depthwise: depthwise convolutions.

    Raises:
        ModelError: the arguments contradict each other.
    """

    config: ModelConfig
    encoder: Encoder | SpectralEncoder
    decoder: Decoder | SpectralDecoder

    def __init__(
        self,
        sampling_rate: int = 44100,
        encoder_dim: int = 64,
        encoder_rates: Sequence[int] = (3, 3, 7, 7),
        latent_dim: int | None = None,
        decoder_dim: int = 1536,
        decoder_rates: Sequence[int] = (7, 7, 3, 3),
        attn_window_size: int | None = 32,
        codebook_size: int = 4096,
        codebook_dim: int = 8,
        vq_strides: Sequence[int] = (8, 4, 2, 1),
        noise: bool = True,
        depthwise: bool = True,
    ) -> None:
        super().__init__()
        self._build(
            WaveformConfig(
                sampling_rate=sampling_rate,
                encoder_dim=encoder_dim,
                encoder_rates=tuple(encoder_rates),
                latent_dim=latent_dim,
                decoder_dim=decoder_dim,
                decoder_rates=tuple(decoder_rates),
                attn_window_size=attn_window_size,
                codebook_size=codebook_size,
                codebook_dim=codebook_dim,
                vq_strides=tuple(vq_strides),
                noise=noise,
                depthwise=depthwise,
            )
        )

    def _build(self, config: ModelConfig) -> None:
        self.config = config
        self.sampling_rate = config.sampling_rate
        self.latent_dim = config.latent_channels
        self.hop_length = config.hop_length
        self.n_codebooks = len(config.vq_strides)
        self.codebook_size = config.codebook_size
        self.codebook_dim = config.codebook_dim
        self.vq_strides = list(config.vq_strides)
        self.attn_window_size = config.attention_window
        if isinstance(config, WaveformConfig):
            self.encoder_dim, self.encoder_rates = config.encoder_dim, list(config.encoder_rates)
            self.decoder_dim, self.decoder_rates = config.decoder_dim, list(config.decoder_rates)
        # Registered in this order, which is that of the published state dict.
        self.encoder = _encoder(config)
        self.quantizer = ResidualVectorQuantize(
            self.latent_dim, config.codebook_size, config.codebook_dim, config.vq_strides
        )
        self.decoder = _decoder(config)

    def preprocess(self, audio_data: Tensor) -> Tensor:
        """Pads (..., T) on the right with zeros to whole coarse tokens and whole windows of the attention.

        By the attributes as they are now: ``hop_length``, ``vq_strides`` and ``attn_window_size``.
        """
        unit = self.hop_length * math.lcm(self.vq_strides[0], self.attn_window_size or 1)
        return F.pad(audio_data, (0, -audio_data.shape[-1] % unit))

    def forward(self, audio_data: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encodes and decodes.

        Args:
            audio_data: (B, 1, T) at ``sampling_rate``, in -1 to 1.

        Returns:
            the audio as decoded, (B, 1, T), and the codes as ``encode`` gives them.

        Raises:
            InputTypeError, InputValueError: as ``encode`` does.
        """
        z_q, codes = self._quantised(audio_data)
        audio_hat = self._decoded(z_q, seed=0)
        return audio_hat[..., : audio_data.shape[-1]], codes

    if TYPE_CHECKING:

        def __call__(self, audio_data: Tensor) -> tuple[Tensor, list[Tensor]]:
            """See ``forward``, whose types are not those of ``nn.Module.__call__``."""

    def encode(self, audio_data: Tensor) -> list[Tensor]:
        """Audio (B, 1, T) to codes: one int64 tensor (B, frames / stride) a level, coarse to fine.

        ``frames`` is the number of latent frames of the audio padded as ``preprocess`` does.

        Raises:
            InputTypeError: the audio is no tensor, or not of floating point.
            InputValueError: it is not of shape (B, 1, T), or without samples.
        """
        return list(self._quantised(audio_data)[1])

    def decode(self, codes: Sequence[Tensor], *, seed: int | None = 0) -> Tensor:
        """Codes to audio.

        Args:
            codes: as ``encode`` gives them; the coarsest one or more levels will do.
            seed: of the decoder's noise, which depends on it and on the position only, so that equal codes
                give equal audio in any batch. None leaves the noise out. While ``decoder`` is in training
                mode, any other value gives fresh noise at every call.

        Returns:
            (B, 1, frames * hop_length), in -1 to 1.

        Raises:
            InputTypeError: the codes are no list of tensors of whole numbers.
            InputValueError: there is no level or more than the model has, a level is not of shape (B, T) or
                of a length that does not fit the others, or a code is not below the codebook's size.
        """
        return self._decoded(self.quantizer.from_codes(checked_codes(codes, self.config)), seed)

    def _quantised(self, audio: Tensor) -> tuple[Tensor, list[Tensor]]:
        check_audio(audio, self.config, next(self.encoder.parameters()).dtype)
        quantised: tuple[Tensor, list[Tensor]] = self.quantizer(self.encoder(self.preprocess(audio)))
        return quantised

    def _decoded(self, latents: Tensor, seed: int | None) -> Tensor:
        """Latents (B, C, T) to audio; where the decoder trains, with fresh noise whatever the seed."""
        audio: Tensor
        if isinstance(self.config, SpectralConfig):
            audio = self.decoder(latents)
        elif seed is None:
            audio = self.decoder(latents, None)
        else:
            audio = self.decoder(latents, FRESH if self.decoder.training else SeededNoise(seed))
        return audio

    @classmethod
    def from_config(cls, config_path: str | Path) -> SNAC:
        """A model with fresh weights from a config.json.

        Raises:
            ModelError: the file cannot be read or describes no SNAC model.
        """
        return cls.from_model_config(ModelConfig.from_file(config_path))

    @classmethod
    def from_model_config(cls, config: ModelConfig) -> SNAC:
        """A model of either form with fresh weights from a validated configuration."""
        if isinstance(config, WaveformConfig):
            return cls(**config.to_dict())
        model = cls.__new__(cls)  # the constructor's arguments are those of the published form
        nn.Module.__init__(model)
        model._build(config)
        return model

    @classmethod
    def from_pretrained(cls, repo_id: str | Path, **kwargs: Any) -> SNAC:
        """A trained model, in evaluation mode on the CPU.

        Args:
            repo_id: a short name (``mini``, ``24khz``, ...), ``owner/name`` or ``owner/name@revision`` on the
                Hugging Face Hub, or a folder with config.json and model.safetensors or pytorch_model.bin.
            kwargs: of ``huggingface_hub.hf_hub_download``: ``revision``, ``cache_dir``, ``token``, ...

        Raises:
            ModelNotFoundError: there is no such model, or it cannot be reached from here.
            ModelError: configuration or weights are damaged, refused, or do not belong together.
        """
        return cls.from_checkpoint(load_checkpoint(repo_id, **kwargs))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> SNAC:
        """A model with weights that were read already, in evaluation mode on the CPU."""
        model = cls.from_model_config(checkpoint.config)
        arrays = checkpoint.arrays.items()
        model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays})
        return model.eval()

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Writes config.json and model.safetensors; of the published form pytorch_model.bin, too.

        The published package then loads the folder as well; models of the spectral form it does not know.

        Args:
            folder: made if missing.
            half: large tensors as float16.

        Raises:
            ModelError: the folder cannot be written, or a value is too large for 16 bits.
        """
        save_checkpoint(folder, self.config, self.state_dict(), half=half)

    def fingerprint(self) -> str:
        """16 hex digits that change with the weights and the configuration; see ``snac.hub.state``."""
        return fingerprint(self.config, self.state_dict()).hex()

    def checkpoint(self, name: str = "model") -> Checkpoint:
        """A copy of the weights as they are now, as ``snac.hub.checkpoint`` reads them from files.

        Args:
            name: the model id that files carry.
        """
        state = self.state_dict().items()
        arrays = {key: tensor.detach().cpu().float().numpy().copy() for key, tensor in state}
        return Checkpoint(name, self.config, arrays, self.fingerprint())

    def fold(self, *, device: str | None = None, threads: int | None = None) -> FoldedModel:
        """The model as it is now in a form for inference alone: faster, and without gradients.

        The model itself stays as it is, and later changes to it do not reach what is returned.

        Args:
            device: where to compute, see ``snac.engine.build_engine``; None for where the model is.
            threads: that compute side by side on a CPU; None for one a processor, at most 8.

        Returns:
            a model with ``encode`` and ``decode`` on tensors; its ``engine`` takes arrays.

        Raises:
            ModelError: there is no such device here.
        """
        from snac.engine import build_engine
        from snac.engine.torch_chain import FoldedModel

        place = device or next(self.parameters()).device.type
        return FoldedModel(build_engine(self.checkpoint(), device=place, threads=threads))


def _encoder(config: ModelConfig) -> Encoder | SpectralEncoder:
    if isinstance(config, SpectralConfig):
        return SpectralEncoder(config)
    assert isinstance(config, WaveformConfig)
    return Encoder(config.encoder_dim, config.encoder_rates, config.depthwise, config.attn_window_size)


def _decoder(config: ModelConfig) -> Decoder | SpectralDecoder:
    if isinstance(config, SpectralConfig):
        return SpectralDecoder(config)
    assert isinstance(config, WaveformConfig)
    return Decoder(
        config.latent_channels,
        config.decoder_dim,
        config.decoder_rates,
        config.noise,
        config.depthwise,
        config.attn_window_size,
    )


def check_audio(audio: Any, config: ModelConfig, weights: torch.dtype) -> None:
    """Checks audio that is to be encoded.

    Args:
        audio: what the caller gave.
        config: of the model.
        weights: the type of the encoder's weights.

    Raises:
        InputTypeError: it is no tensor, or not of the floating point that the weights take.
        InputValueError: it is not of shape (B, 1, T), or without samples.
    """
    if not isinstance(audio, Tensor):
        hint = ": torch.from_numpy makes one of it" if type(audio).__module__ == "numpy" else ""
        raise InputTypeError(f"{_wanted_audio(config)}, not a {type(audio).__name__}{hint}")
    if not audio.is_floating_point():
        hint = ": divide 16-bit samples by 32768" if audio.dtype == torch.int16 else ""
        raise InputTypeError(f"{_wanted_audio(config)}, not {_name(audio.dtype)}{hint}")
    if audio.dtype == torch.float64 != weights:
        raise InputTypeError(f"{_wanted_audio(config)}, not float64: give audio.float()")
    if audio.ndim != 3 or audio.shape[1] != 1:
        raise InputValueError(f"{_wanted_audio(config)}, not of shape {tuple(audio.shape)}{_remedy(audio)}")
    if audio.shape[0] == 0 or audio.shape[2] == 0:
        raise InputValueError(
            f"{_wanted_audio(config)}, not of shape {tuple(audio.shape)}: there are no samples"
        )


def checked_codes(codes: Any, config: ModelConfig) -> list[Tensor]:
    """Codes that are to be decoded, as int64.

    Raises:
        InputTypeError: they are no list of tensors of whole numbers.
        InputValueError: there is no level or more than the model has, a level is not of shape (B, T) or of a
            length that does not fit the others, or a code is not below the codebook's size.
    """
    wanted = (
        f"codes must be a list of (batch, tokens) int64 tensors, coarse to fine, below {config.codebook_size}"
    )
    if not isinstance(codes, Iterable) or isinstance(codes, (str, bytes, dict)):
        raise InputTypeError(f"{wanted}, not a {type(codes).__name__}")
    levels = list(codes)
    for number, level in enumerate(levels):
        if not isinstance(level, Tensor):
            raise InputTypeError(f"{wanted}; level {number} is a {type(level).__name__}")
        if level.is_floating_point() or level.is_complex() or level.dtype == torch.bool:
            raise InputTypeError(f"{wanted}; level {number} is of {_name(level.dtype)}")
        if level.ndim != 2:
            hint = ": give code.unsqueeze(0)" if level.ndim == 1 else ""
            raise InputValueError(f"{wanted}; level {number} is of shape {tuple(level.shape)}{hint}")
    if not 1 <= len(levels) <= len(config.vq_strides):
        raise InputValueError(f"codes must have 1 to {len(config.vq_strides)} levels, not {len(levels)}")
    levels = [level.long() for level in levels]
    if traced():  # sizes stay open, and there are no values
        return levels
    _check_lengths(levels, config)
    for number, (low, high) in enumerate(_ranges(levels)):
        if low < 0 or high >= config.codebook_size:
            raise InputValueError(f"{wanted}; level {number} has {low if low < 0 else high}")
    return levels


def _ranges(levels: list[Tensor]) -> list[list[int]]:
    """The least and the greatest code of each level; none where tensors have no values to look at."""
    # Together, because each transfer from a GPU waits for all of its work.
    ranges = torch.stack([torch.stack(level.aminmax()) for level in levels])
    try:
        values: list[list[int]] = ranges.tolist()
    except RuntimeError:  # on the meta device, fake, or within torch.func.vmap
        return []
    return values


def _check_lengths(levels: list[Tensor], config: ModelConfig) -> None:
    strides = config.vq_strides
    if len({level.shape[0] for level in levels}) > 1:
        raise InputValueError(f"levels have different batches: {[level.shape[0] for level in levels]}")
    lengths = [level.shape[1] for level in levels]
    frames = {length * stride for length, stride in zip(lengths, strides, strict=False)}
    if len(frames) > 1:
        raise InputValueError(f"levels of {lengths} tokens do not fit the strides {list(strides)}")
    if 0 in frames or levels[0].shape[0] == 0:
        raise InputValueError("codes must have at least one token a level")
    if (total := frames.pop()) % (window := config.attention_window or 1):
        raise InputValueError(
            f"codes of {total} latent frames are no multiple of {window}, the attention's window: add some, "
            f"or leave out {total % window // strides[0]} of the {lengths[0]} tokens of the first level"
        )


def _wanted_audio(config: ModelConfig) -> str:
    return f"audio must be a (batch, 1, samples) tensor of float32 in -1 to 1 at {config.sampling_rate} Hz"


def _remedy(audio: Tensor) -> str:
    """What makes the shape right, where one can tell."""
    if audio.ndim == 1:
        return ": give audio[None, None]"
    if audio.ndim == 2 and audio.shape[0] > audio.shape[1]:
        return ": give audio.T[:, None], each channel by itself"
    if audio.ndim == 2:
        return ": give audio[:, None], each channel by itself"
    if audio.ndim == 3 and audio.shape[2] >= audio.shape[1] > 1:
        return ": give audio.flatten(0, 1)[:, None], each channel by itself"
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
