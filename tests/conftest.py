"""What tests of several modules share: a tiny model on disk, a real recording, and an honest last word."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parent.parent
RECORDINGS = ROOT / "examples" / "audio"


def cores() -> int:
    """Processors this process may use; in a container fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Before torch is imported anywhere: more threads than cores make small tensors many times slower.
workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // workers)))
# On a busy machine an example may take any time.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
# No test may reach for the network by mistake.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a SNAC model of random weights: 16 kHz, hop 32, strides 8 4 2 1, 256 codewords."""
    import torch

    from snac.hub.checkpoint import save_checkpoint
    from snac.nn.model import SNAC

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SNAC(
            sampling_rate=16000,
            encoder_dim=8,
            encoder_rates=(4, 8),
            decoder_dim=32,
            decoder_rates=(8, 4),
            attn_window_size=None,
            codebook_size=256,
            vq_strides=(8, 4, 2, 1),
        )
    return save_checkpoint(tmp_path_factory.mktemp("models") / "tiny", model.config, model.state_dict())


@pytest.fixture(scope="session")
def user_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of a user who has this checkout's ``snac`` on the PATH, and no network."""
    programs = tmp_path_factory.mktemp("programs")
    (programs / "snac").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m snaccli "$@"\n')
    (programs / "snac").chmod(0o755)
    ours = ("PYTHON", "PIP_", "SNAC_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "SNAC_CONSTRAINTS" or not name.startswith(ours)  # else examples/env.sh installs others
    }
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first three seconds of a real recording, mono 16-bit WAV at its own rate."""
    import soundfile

    with soundfile.SoundFile(RECORDINGS / "speech-en.flac") as file:
        samples = file.read(3 * file.samplerate, dtype="float32", always_2d=True)[:, 0]
        rate = file.samplerate
    path = tmp_path_factory.mktemp("recordings") / "speech.wav"
    soundfile.write(path, samples, rate, subtype="PCM_16")
    return path


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs torch or a browser by what it uses, so that the marks cannot be forgotten."""
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "tiny_model_folder" in fixtures or hasattr(getattr(item, "module", None), "torch"):
            item.add_marker(pytest.mark.torch)
        if "browser" in fixtures:
            item.add_marker(pytest.mark.browser)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Names what could not be checked on this machine, so that a skipped test is never silent."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped")
    )
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"not checked here ({count} test{'s' * (count > 1)}): {reason}")
