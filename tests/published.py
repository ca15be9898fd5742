"""The published ``snac`` package from PyPI, loaded beside ours under another name: the yardstick.

    python -m tests.published            compares the three published configurations, random weights
    python -m tests.published --golden   rewrites tests/golden/model.npz (small configurations)

The package is installed without its dependencies into a folder of its own (argument ``--target``).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from snac.nn.model import SNAC

VERSION = "1.2.1"
GOLDEN = Path(__file__).parent / "golden" / "model.npz"

SPEECH = {
    "sampling_rate": 24000, "encoder_dim": 48, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 1024,
    "decoder_rates": [8, 8, 4, 2], "attn_window_size": None, "vq_strides": [4, 2, 1],
}  # fmt: skip
MUSIC = {
    "encoder_dim": 64, "encoder_rates": [2, 3, 8, 8], "decoder_dim": 1536, "decoder_rates": [8, 8, 3, 2],
    "attn_window_size": 32, "vq_strides": [8, 4, 2, 1],
}  # fmt: skip
FULL: dict[str, dict[str, Any]] = {
    "24khz": SPEECH,
    "32khz": {"sampling_rate": 32000, **MUSIC},
    "44khz": {"sampling_rate": 44100, **MUSIC},
}

_SMALL = {"sampling_rate": 8000, "codebook_size": 64, "codebook_dim": 4}
SMALL: dict[str, dict[str, Any]] = {
    "even-depthwise": {
        **_SMALL, "encoder_dim": 8, "encoder_rates": [2, 4], "decoder_dim": 32, "decoder_rates": [4, 2],
        "attn_window_size": None, "vq_strides": [4, 2, 1],
    },
    "odd-attention": {
        **_SMALL, "encoder_dim": 16, "encoder_rates": [3, 5], "decoder_dim": 64, "decoder_rates": [5, 3],
        "attn_window_size": 8, "vq_strides": [8, 4, 2, 1],
    },
    "full-convolutions": {
        **_SMALL, "encoder_dim": 8, "encoder_rates": [2, 3], "decoder_dim": 32, "decoder_rates": [3, 2],
        "attn_window_size": None, "vq_strides": [2, 1], "depthwise": False,
    },
    "no-noise-attention": {
        **_SMALL, "encoder_dim": 16, "encoder_rates": [2, 4], "decoder_dim": 64, "decoder_rates": [4, 2],
        "attn_window_size": 16, "vq_strides": [4, 2, 1], "depthwise": False, "noise": False,
    },
}  # fmt: skip


def install(target: Path) -> None:
    """Puts the published package into ``target``, unless it is there."""
    if not (target / "snac" / "snac.py").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
        subprocess.run([*pip, f"snac=={VERSION}"], check=True)


def load(target: Path) -> ModuleType:
    """Imports the package in ``target`` as ``published_snac``, out of the way of our own."""
    folder = target / "snac"
    spec = importlib.util.spec_from_file_location(
        "published_snac", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["published_snac"] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def silent_noise() -> Iterator[None]:
    """Within it torch.randn gives zeros: the published noise blocks have no switch of their own."""
    original = torch.randn
    torch.randn = lambda size, **options: torch.zeros(size, **options)  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.randn = original  # type: ignore[assignment]


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights that exercise every parameter; small biases, so that the codes follow the signal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith("alpha"):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            elif name.endswith("bias"):
                tensor.mul_(0.02)
            else:
                tensor.mul_(1 + 0.2 * torch.rand(tensor.shape, generator=generator))


def test_signal(length: int, rate: int, seed: int) -> torch.Tensor:
    """Tones, a sweep and noise: (1, 1, length)."""
    rng = np.random.default_rng(seed)
    t = np.arange(length) / rate
    wave = 0.3 * np.sin(2 * np.pi * 220 * t) + 0.2 * np.sin(2 * np.pi * (300 + 400 * t) * t)
    wave += 0.1 * rng.standard_normal(length)
    return torch.from_numpy(wave.astype(np.float32))[None, None]


test_signal.__test__ = False  # type: ignore[attr-defined]


def make_golden(published: ModuleType) -> None:
    """Runs the small configurations through the published package and keeps what came out."""
    arrays: dict[str, np.ndarray] = {}
    for seed, (name, config) in enumerate(SMALL.items()):
        torch.manual_seed(seed)
        model = published.SNAC(**config).eval()
        randomise(model, seed)
        audio = test_signal(1500 + seed, config["sampling_rate"], seed)
        with torch.no_grad(), silent_noise():
            audio_hat, codes = model(audio)
            decoded = model.decode(codes)
        arrays[f"{name}/config"] = np.frombuffer(json.dumps(config).encode(), dtype=np.uint8)
        arrays[f"{name}/audio"] = audio.numpy()
        arrays[f"{name}/audio_hat"] = audio_hat.numpy()
        arrays[f"{name}/decoded"] = decoded.numpy()
        for level, code in enumerate(codes):
            arrays[f"{name}/codes/{level}"] = code.numpy().astype(np.int16)
        for key, tensor in model.state_dict().items():
            arrays[f"{name}/weights/{key}"] = tensor.numpy()
    np.savez_compressed(GOLDEN, **arrays)  # type: ignore[arg-type]
    print(f"{GOLDEN}: {GOLDEN.stat().st_size} bytes, {len(SMALL)} configurations")


def compare(published: ModuleType, name: str, config: dict[str, Any], seconds: float) -> bool:
    """Same random weights in both packages, both ways strict; prints and judges the differences.

    The modules must agree in every code, the engine of inference in all but one of a thousand.
    """
    torch.manual_seed(0)
    theirs = published.SNAC(**config).eval()
    randomise(theirs, 0)
    ours = SNAC(**config).eval()
    same_keys = list(theirs.state_dict()) == list(ours.state_dict())
    ours.load_state_dict(theirs.state_dict(), strict=True)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    audio = test_signal(int(seconds * config["sampling_rate"]), config["sampling_rate"], 0)
    with torch.no_grad(), silent_noise():
        their_audio, their_codes = theirs(audio)
    keys = f"{len(theirs.state_dict())} keys {'equal' if same_keys else 'DIFFER'}, strict loading both ways"
    tokens = sum(code.numel() for code in their_codes)
    good, told = same_keys, []
    for form, model, most, near in (
        ("modules", ours, 0, 1e-5),
        ("engine", ours.fold(), tokens // 1000, 1e-4),
    ):
        with torch.no_grad():
            our_codes = model.encode(audio)
            our_audio = model.decode(their_codes, seed=None)[..., : audio.shape[-1]]
        differing = sum(int((a != b).sum()) for a, b in zip(our_codes, their_codes, strict=True))
        error = float((our_audio - their_audio).abs().max())
        good = good and differing <= most and error < near
        told.append(f"{form}: codes {tokens - differing} of {tokens} equal, audio within {error:.1e}")
    print(f"{name}: {keys}; {'; '.join(told)}", flush=True)
    return good


def main() -> int:
    """Command line of this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--golden", action="store_true", help="rewrite tests/golden/model.npz")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the compared signal")
    parser.add_argument(
        "--target", type=Path, default=Path(tempfile.gettempdir()) / f"published-snac-{VERSION}"
    )
    arguments = parser.parse_args()
    install(arguments.target)
    published = load(arguments.target)
    if arguments.golden:
        make_golden(published)
        return 0
    results = [compare(published, name, config, arguments.seconds) for name, config in FULL.items()]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
