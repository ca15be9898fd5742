"""The modules of the published package: what programs import from them is here, with the same arguments."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest
import torch
from torch import nn

import snac
from snac.attention import LocalMHA
from snac.layers import Decoder, EncoderBlock, Snake1d, WNConv1d, WNConvTranspose1d, snake

# Of snac 1.2.1; arguments that are ours alone come after these.
PUBLISHED = {
    "snac.SNAC": "sampling_rate encoder_dim encoder_rates latent_dim decoder_dim decoder_rates "
    "attn_window_size codebook_size codebook_dim vq_strides noise depthwise",
    "layers.Encoder": "d_model strides depthwise attn_window_size",
    "layers.Decoder": "input_channel channels rates noise depthwise attn_window_size d_out",
    "layers.ResidualUnit": "dim dilation kernel groups",
    "layers.EncoderBlock": "output_dim input_dim stride groups",
    "layers.NoiseBlock": "dim",
    "layers.DecoderBlock": "input_dim output_dim stride noise groups",
    "layers.Snake1d": "channels",
    "layers.LocalMHA": "dim window_size dim_head use_rotary_pos_emb",
    "attention.LocalMHA": "dim window_size dim_head use_rotary_pos_emb",
    "vq.VectorQuantize": "input_dim codebook_size codebook_dim stride",
    "vq.ResidualVectorQuantize": "input_dim codebook_size codebook_dim vq_strides",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_takes_the_published_arguments(name: str) -> None:
    module, _, kind = name.partition(".")
    found = list(inspect.signature(getattr(import_module(f"snac.{module}"), kind)).parameters)
    published = PUBLISHED[name].split()
    assert found[: len(published)] == published


def test_the_model_is_one_class_under_every_name() -> None:
    assert import_module("snac.snac").SNAC is snac.SNAC


def test_the_modules_are_there_once_the_package_is_imported() -> None:
    code = "import snac; snac.layers.Snake1d, snac.vq.VectorQuantize, snac.attention, snac.snac.SNAC"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_layers_stand_alone() -> None:
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    assert WNConv1d(4, 6, kernel_size=3, padding=1)(x).shape == (2, 6, 8)
    assert WNConvTranspose1d(4, 6, kernel_size=4, stride=2, padding=1)(x).shape == (2, 6, 16)
    assert EncoderBlock(6, 4, 2)(x).shape == (2, 6, 4)
    assert Decoder(4, 8, [2], attn_window_size=None, d_out=2)(x).shape == (2, 2, 16)
    assert isinstance(WNConv1d(1, 1, 1), nn.Conv1d)


def test_snake_takes_any_shape() -> None:
    x, activation = torch.linspace(-2, 2, 24), Snake1d(3)
    with torch.no_grad():
        activation.alpha.copy_(torch.tensor([0.5, 1, 2]).reshape(1, 3, 1))
    for shape in ((8, 3), (2, 3, 4), (1, 3, 2, 4)):
        channels = x.reshape(shape)
        alpha = activation.alpha.reshape([3 if axis == 1 else 1 for axis in range(len(shape))])
        expected = channels + torch.sin(alpha * channels) ** 2 / alpha
        torch.testing.assert_close(snake(channels, activation.alpha), expected)
        torch.testing.assert_close(activation(channels), expected)


def test_attention_without_rotation_knows_no_order_within_a_window() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 64, 8)
    for rotary, same in ((False, True), (True, False)):
        attention = LocalMHA(64, 8, use_rotary_pos_emb=rotary)
        turned = attention(x.flip(-1)).flip(-1)
        assert torch.allclose(attention(x), turned, atol=1e-5) == same
