"""The SNAC model: audio to codes at several time scales, and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snac.config import ModelConfig, WaveformConfig
from snac.engine.inference import fuse
from snac.errors import ModelError
from snac.hub import locate as hub
from snac.hub.checkpoint import check_state_dict, load_state_dict, save_checkpoint
from snac.hub.fingerprint import fingerprint
from snac.nn.layers import Decoder, Encoder, convolutions
from snac.nn.vq import ResidualVectorQuantize
from snac.noise import NoiseSource


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
        self.config = WaveformConfig(
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
        config = self.config
        assert config.latent_dim is not None
        self.sampling_rate = config.sampling_rate
        self.encoder_dim = config.encoder_dim
        self.encoder_rates = list(config.encoder_rates)
        self.decoder_dim = config.decoder_dim
        self.decoder_rates = list(config.decoder_rates)
        self.latent_dim = config.latent_dim
        self.hop_length = config.hop_length
        self.n_codebooks = len(config.vq_strides)
        self.codebook_size = config.codebook_size
        self.codebook_dim = config.codebook_dim
        self.vq_strides = list(config.vq_strides)
        self.attn_window_size = config.attn_window_size
        self.encoder = Encoder(encoder_dim, encoder_rates, depthwise, attn_window_size)
        self.quantizer = ResidualVectorQuantize(config.latent_dim, codebook_size, codebook_dim, vq_strides)
        self.decoder = Decoder(
            config.latent_dim, decoder_dim, decoder_rates, noise, depthwise, attn_window_size
        )
        self._fingerprint_of_folded: str | None = None

    def preprocess(self, audio_data: Tensor) -> Tensor:
        """Pads (..., T) on the right with zeros to a multiple of ``config.pad_multiple`` samples."""
        length = audio_data.shape[-1]
        padded = math.ceil(length / self.config.pad_multiple) * self.config.pad_multiple
        return F.pad(audio_data, (0, padded - length))

    def forward(self, audio_data: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Encodes and decodes.

        Args:
            audio_data: (B, 1, T) at ``sampling_rate``, in -1 to 1.

        Returns:
            the audio as decoded, (B, 1, T), and the codes as ``encode`` gives them.
        """
        length = audio_data.shape[-1]
        z_q, codes = self.quantizer(self.encoder(self.preprocess(audio_data)))
        audio_hat = self.decoder(z_q, self._noise_source(0))
        return audio_hat[..., :length], codes

    def encode(self, audio_data: Tensor) -> list[Tensor]:
        """Audio (B, 1, T) to codes: one int64 tensor (B, frames / stride) a level, coarse to fine.

        ``frames`` is the number of latent frames of the audio padded as ``preprocess`` does.
        """
        _, codes = self.quantizer(self.encoder(self.preprocess(audio_data)))
        return list(codes)

    def decode(self, codes: Sequence[Tensor], *, seed: int | None = 0) -> Tensor:
        """Codes to audio.

        Args:
            codes: as ``encode`` gives them; the coarsest one or more levels will do.
            seed: of the decoder's noise, which depends on it and on the position only, so that equal codes
                give equal audio in any batch. None leaves the noise out.

        Returns:
            (B, 1, frames * hop_length), in -1 to 1.

        Raises:
            ValueError: no level, more than the model has, or levels whose lengths do not fit together.
        """
        self._check_codes(codes)
        z_q = self.quantizer.from_codes(codes)
        audio: Tensor = self.decoder(z_q, self._noise_source(seed or 0), noise_on=seed is not None)
        return audio

    def _noise_source(self, seed: int) -> NoiseSource | None:
        # Training wants fresh noise at every step.
        return None if self.training else NoiseSource(seed)

    def _check_codes(self, codes: Sequence[Tensor]) -> None:
        if not 1 <= len(codes) <= self.n_codebooks:
            raise ValueError(f"codes must have 1 to {self.n_codebooks} levels, not {len(codes)}")
        frames = {code.shape[-1] * stride for code, stride in zip(codes, self.vq_strides, strict=False)}
        if len(frames) > 1:
            lengths = [code.shape[-1] for code in codes]
            raise ValueError(f"levels of {lengths} tokens do not fit the strides {self.vq_strides}")

    @classmethod
    def from_config(cls, config_path: str | Path) -> SNAC:
        """A model with fresh weights from a config.json.

        Raises:
            ModelError: the file cannot be read or describes no SNAC model.
        """
        return cls.from_model_config(ModelConfig.from_file(config_path))

    @classmethod
    def from_model_config(cls, config: ModelConfig) -> SNAC:
        """A model with fresh weights from a validated configuration."""
        return cls(**config.to_dict())

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
        files = hub.locate(repo_id, **kwargs)
        config = ModelConfig.from_file(files.config)
        state = load_state_dict(files.weights)
        model = cls.from_model_config(config)
        check_state_dict(model.state_dict(), state, files.weights)
        model.load_state_dict(state)
        if hub.recorded_fingerprint(files) is None:
            hub.remember(files, fingerprint(config, state).hex())
        return model.eval()

    def save_pretrained(self, folder: str | Path, *, half: bool = False) -> None:
        """Writes config.json, model.safetensors and pytorch_model.bin, which the published package loads too.

        Args:
            folder: made if missing.
            half: large tensors as float16.

        Raises:
            ModelError: the model was folded, or the folder cannot be written.
        """
        if self._fingerprint_of_folded is not None:
            raise ModelError("a folded model cannot be saved: load it again and save that")
        save_checkpoint(folder, self.config, self.state_dict(), half=half)

    def fingerprint(self) -> str:
        """16 hex digits that change with the weights and the configuration; see ``snac.hub.fingerprint``."""
        if self._fingerprint_of_folded is not None:
            return self._fingerprint_of_folded
        return fingerprint(self.config, self.state_dict()).hex()

    def lower_precision(self, dtype: torch.dtype = torch.float16) -> SNAC:
        """Converts encoder and decoder, in place, and returns the model; codebooks stay in single precision.

        Less memory, and on a GPU more speed; codes and audio then differ from those of single precision. For
        ``encode_tiles`` and ``decode_tiles``, which convert what passes between the parts.
        """
        self._fingerprint_of_folded = self.fingerprint()
        self.encoder.to(dtype)
        self.decoder.to(dtype)
        return self

    def fold(self) -> SNAC:
        """Turns the model into its inference form, in place, and returns it.

        Each weight norm is computed once and for all, and on a CPU kernels take the place of the costly
        layers; the results stay the same but for rounding. The state dict is then no longer of the published
        form, and the model is not for training or saving.
        """
        if self._fingerprint_of_folded is None:
            self._fingerprint_of_folded = self.fingerprint()
        for module in convolutions(self):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
        fuse(self.encoder, self.decoder)
        return self.eval().requires_grad_(False)
