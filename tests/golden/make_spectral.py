"""Rewrites spectral.npz: what the code that the spectral form was first tried in makes of random weights.

    python -m tests.golden.make_spectral PROTOTYPE

PROTOTYPE is the folder of that code, with its model.py and config.json and the weights that it learned,
model.safetensors. The file holds small models, their weights under the names of ``snac``, a signal, its
features, codes and the decoded audio. With the learned weights the same is compared and told.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import load_file

import snac.nn.vq
from snac.config import ModelConfig
from snac.nn.model import SNAC
from tests.published import test_signal

GOLDEN = Path(__file__).parent / "spectral.npz"
SPEECH = Path(__file__).parents[2] / "examples" / "audio" / "speech-en.flac"

# The prototype's short window is 320 samples whatever the hop, so the hop is that, too.
SMALL: dict[str, dict[str, Any]] = {
    "four-windows": {
        "architecture": "spectral", "sampling_rate": 16000, "hop_length": 320, "window_length": 1280,
        "latent_dim": 12, "encoder": {"dim": 8, "hidden": 24, "blocks": 2},
        "decoder": {"dim": 10, "hidden": 28, "blocks": 3},
        "codebook_size": 64, "codebook_dim": 4, "vq_strides": [8, 4, 2, 1],
    },
    "two-windows": {
        "architecture": "spectral", "sampling_rate": 24000, "hop_length": 320, "window_length": 640,
        "latent_dim": 16, "encoder": {"dim": 6, "hidden": 36, "blocks": 1},
        "decoder": {"dim": 12, "hidden": 36, "blocks": 2},
        "codebook_size": 50, "codebook_dim": 8, "vq_strides": [4, 4, 1],
    },
}  # fmt: skip

_NAMES = {
    "enc.inp": "encoder.embed", "enc.n0": "encoder.norm", "enc.n1": "encoder.final_norm",
    "enc.blocks": "encoder.blocks", "proj": "encoder.project",
    "dec.inp": "decoder.embed", "dec.n0": "decoder.norm", "dec.n1": "decoder.final_norm",
    "dec.blocks": "decoder.blocks", "head": "decoder.head", "quantizer": "quantizer",
}  # fmt: skip
_IN_BLOCKS = {"dw": "depthwise.weight", "db": "depthwise.bias", "g": "scale", "a": "expand", "b": "contract"}


def renamed(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The prototype's weights under the names and in the shapes of ``snac``."""
    result = {}
    for name, tensor in weights.items():
        first = next(old for old in _NAMES if name.startswith(old + "."))
        rest = name.removeprefix(first + ".")
        if first.endswith("blocks"):
            number, key, *more = rest.split(".")
            rest = ".".join((number, _IN_BLOCKS.get(key, key), *more))
            if key == "dw":  # taps by channels
                tensor = tensor.t().unsqueeze(1).contiguous()
        result[f"{_NAMES[first]}.{rest}"] = tensor
    return result


def prototype_model(code: ModuleType, config: dict[str, Any]) -> Any:
    """The prototype's module of a configuration."""
    encoder, decoder = config["encoder"], config["decoder"]
    return code.Spectral(
        sr=config["sampling_rate"], hop=config["hop_length"], nfft=config["window_length"],
        latent=config["latent_dim"], de=encoder["dim"], he=encoder["hidden"], ne=encoder["blocks"],
        dd=decoder["dim"], hd=decoder["hidden"], nd=decoder["blocks"], strides=config["vq_strides"],
        K=config["codebook_size"], D=config["codebook_dim"],
    ).eval()  # fmt: skip


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights that exercise every parameter, and an output that is neither silent nor cut."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith(("norm.weight", "n0.weight", "n1.weight", ".g")):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif name.endswith(("bias", ".db")):
                tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
            elif not name.endswith("original0"):
                tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=generator))


@torch.no_grad()
def outcome(model: Any, audio: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """Features (1, 180, frames), codes and audio (1, samples) of the prototype."""
    quantised, codes = model.quantizer(model.encode_latent(audio))
    return model.feats(audio), codes, model.decode_latent(quantised)


def make(code: ModuleType) -> None:
    """Runs the small models through the prototype and keeps what came out."""
    arrays: dict[str, np.ndarray] = {}
    for seed, (name, config) in enumerate(SMALL.items()):
        torch.manual_seed(seed)
        model = prototype_model(code, config)
        randomise(model, seed)
        unit = config["hop_length"] * config["vq_strides"][0]
        audio = test_signal(3 * unit, config["sampling_rate"], seed)[0]
        features, codes, decoded = outcome(model, audio)
        arrays[f"{name}/config"] = np.frombuffer(json.dumps(config).encode(), dtype=np.uint8)
        arrays[f"{name}/audio"], arrays[f"{name}/features"] = audio[None].numpy(), features.numpy()
        arrays[f"{name}/decoded"] = decoded[None].numpy()
        for level, tokens in enumerate(codes):
            arrays[f"{name}/codes/{level}"] = tokens.numpy().astype(np.int16)
        for key, tensor in renamed(model.state_dict()).items():
            arrays[f"{name}/weights/{key}"] = tensor.numpy()
    np.savez_compressed(GOLDEN, **arrays)  # type: ignore[arg-type]
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size} bytes, {len(SMALL)} models")


@torch.no_grad()
def compare(code: ModuleType, folder: Path) -> None:
    """The learned weights, in the prototype and in ``snac``, on a second of speech."""
    config = json.loads((folder / "config.json").read_text())
    weights = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    theirs, ours = prototype_model(code, config), SNAC.from_model_config(ModelConfig.from_dict(config)).eval()
    theirs.load_state_dict(weights)
    ours.load_state_dict(renamed(weights))
    samples, rate = soundfile.read(SPEECH, dtype="float32", always_2d=True)
    audio = ours.preprocess(torch.from_numpy(samples[rate : 2 * rate, 0])[None])
    features, codes, decoded = outcome(theirs, audio)
    our_codes = ours.encode(audio[None])
    our_audio = ours.decode(codes)
    equal = sum(int((a == b).sum()) for a, b in zip(our_codes, codes, strict=True))
    total = sum(level.numel() for level in codes)
    differing = float((ours.encoder.features(audio[None]) - features).abs().max())
    print(
        f"learned weights: features within {differing:.1e}, "
        f"codes {equal} of {total} equal, audio within {float((our_audio[0] - decoded).abs().max()):.1e} "
        f"of a peak of {float(decoded.abs().max()):.2f}"
    )


def main() -> None:
    """Command line of this script."""
    folder = Path(sys.argv[1])
    sys.modules["snac.vq"] = snac.nn.vq  # where the prototype looks for the quantiser
    spec = importlib.util.spec_from_file_location("prototype", folder / "model.py")
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    make(code)
    compare(code, folder)


if __name__ == "__main__":
    main()
