"""Gives a trained model a path for the waveform of the low band (see snaccli/training/lowband.py).

    python examples/train/low_band.py MODEL OUT PACKED.npy=SHARE ...

MODEL is a name or a folder, OUT becomes a folder to train on from: `init = "OUT"` in a configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from snac.nn.model import SNAC
from snaccli.training.config import AugmentationConfig
from snaccli.training.data.loader import SegmentSampler
from snaccli.training.losses import LowBandLoss
from snaccli.training.lowband import LowBandPath, with_codebook_dim

CODEBOOK_DIM = 24  # 23 of the 30 coefficients below 1100 Hz, and a constant
SECONDS, BATCH = 0.4267, 4
COMPONENTS, CODEWORDS = 300, 1200  # batches


def main(model_name: str, out: str, sources: list[str]) -> None:
    torch.manual_seed(0)
    model = with_codebook_dim(SNAC.from_pretrained(model_name), CODEBOOK_DIM)
    path = LowBandPath.least_used(model)
    path.build(model)
    shares = {name: float(share) for name, _, share in (source.rpartition("=") for source in sources)}
    sampler = SegmentSampler(shares, model.sampling_rate, AugmentationConfig(), seed=0)
    length = round(SECONDS * model.sampling_rate / model.config.pad_multiple) * model.config.pad_multiple

    def audio(first: int, count: int) -> Iterator[Tensor]:
        return (torch.from_numpy(sampler.batch(n, length, BATCH)) for n in range(first, first + count))

    taps = LowBandLoss(model.sampling_rate).get_buffer("taps")
    low = [F.conv1d(wave, taps, padding=taps.shape[-1] // 2) for wave in audio(10**6, COMPONENTS)]
    path.fit(model, low, audio(2 * 10**6, CODEWORDS), torch.Generator().manual_seed(0))
    model.save_pretrained(out)
    path.write(out)
    print(f"{out}: {len(path.encoder[-1])} channels carry the waveform below 1100 Hz")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
