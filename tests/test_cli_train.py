"""``snac train`` as it is called: resumed, limited, refused, interrupted; alone and as two processes."""

from __future__ import annotations

import io
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch

from snac.nn.model import SNAC
from snaccli.cli.app import run
from snaccli.cli.ui.console import Console
from snaccli.errors import SnacError
from snaccli.training import processes

from . import published
from .training_runs import pack, recordings

ROOT = Path(__file__).resolve().parent.parent
CONFIG = """
unquantised_steps = 2
fit_seconds = 1.0
validate_every = 4
checkpoint_every = 4
revive_every = 3
[[stages]]
steps = {steps}
seconds = 0.128
batch = 4
[model]
sampling_rate = 8000
encoder_dim = 4
encoder_rates = [4, 4]
decoder_dim = 16
decoder_rates = [4, 4]
attn_window_size = 0
codebook_size = 32
codebook_dim = 4
vq_strides = [2, 1]
[data]
train = "data"
validation_segments = 4
workers = 1
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    recordings(tmp_path / "data")
    (tmp_path / "tiny.toml").write_text(CONFIG.format(steps=8))
    return tmp_path / "tiny.toml"


def call(*arguments: str | Path) -> tuple[int, str, str]:
    console = Console(io.StringIO(), io.StringIO(), {"COLUMNS": "120"})
    status = run(["train", *map(str, arguments)], console)
    return status, console.stdout.getvalue(), console.stderr.getvalue()  # type: ignore[attr-defined]


def test_a_run_leaves_a_model_a_log_and_a_table(config: Path, tmp_path: Path) -> None:
    status, out, err = call(config, "-o", tmp_path / "run")
    assert status == 0, err
    assert "baseline at 0.13 s: loss" in err
    assert "codebooks fitted to" in err
    assert "step 8: validation loss" in err
    assert all(word in out for word in ("baseline", "last", "best", "step 8 of 8"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "validation" in row] == [4, 8]
    assert (tmp_path / "run" / "baseline_metrics.json").is_file()
    assert SNAC.from_pretrained(tmp_path / "run" / "model").hop_length == 16

    status, _, err = call(config, "-o", tmp_path / "run")
    assert status == 2
    assert "holds a run already: --resume" in err


def test_a_run_is_limited_and_resumed(config: Path, tmp_path: Path) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert call(config, "-o", whole)[0] == 0
    status, out, _ = call(config, "-o", pieces, "--limit", 3, "--json", "--resume")
    assert status == 0
    assert json.loads(out)["step"] == 3
    status, out, err = call(config, "-o", pieces, "--resume", "--json")
    assert "resumed after step 3 of 8" in err
    value = json.loads(out)
    assert (value["step"], value["steps"]) == (8, 8)
    assert value["validation"][0]["seconds"] == 0.128
    one, other = (torch.load(run / "last.pt", weights_only=True)["model"] for run in (whole, pieces))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def published_package() -> ModuleType:
    """The package of PyPI that has our name, installed once, beside ours in the environment of the tests."""
    folder = Path(sys.prefix) / f"published-snac-{published.VERSION}"
    published.install(folder)
    return published.load(folder)


@pytest.mark.parametrize(
    "changes",
    [(), ("half=true", "model.attn_window_size=4", "model.encoder_dim=16", "model.decoder_dim=64")],
    ids=["plain", "attention in 16 bits"],
)
def test_the_exported_model_works_in_the_published_package(
    config: Path, tmp_path: Path, published_package: ModuleType, changes: tuple[str, ...]
) -> None:
    arguments = [word for change in changes for word in ("--set", change)]
    status, _, err = call(config, *arguments, "-o", tmp_path / "run")
    assert status == 0, err
    folder = tmp_path / "as published"
    folder.mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        shutil.copy(tmp_path / "run" / "model" / name, folder)
    theirs = published_package.SNAC.from_pretrained(str(folder))
    ours = SNAC.from_pretrained(tmp_path / "run" / "model").eval()
    audio = published.test_signal(5100, ours.sampling_rate, 0)
    with torch.no_grad(), published.silent_noise():
        codes = theirs.encode(audio)
        decoded = theirs.decode(codes)
    assert [code.shape[-1] for code in codes] == [160, 320]
    assert all(len(code.unique()) > 4 for code in codes)
    assert all(torch.equal(a, b) for a, b in zip(ours.encode(audio), codes, strict=True))
    assert decoded.abs().max() > 1e-3
    torch.testing.assert_close(ours.decode(codes, seed=None), decoded, atol=1e-5, rtol=0)


def test_an_exported_model_can_be_trained_on(config: Path, tmp_path: Path) -> None:
    call(config, "-o", tmp_path / "run")
    model = tmp_path / "run" / "model"
    arguments = ("--init", model, "--set", "unquantised_steps=0", "--set", "stages.0.steps=2")
    status, _, err = call(config, *arguments, "-o", tmp_path / "tuned")
    assert status == 0, err
    assert f"from `{model}`" in (tmp_path / "tuned" / "model" / "README.md").read_text()
    before, after = (
        SNAC.from_pretrained(folder).fingerprint() for folder in (model, tmp_path / "tuned" / "model")
    )
    assert before != after


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["--set", "data.train=missing"], "holds no recording", 1),
        (["--set", "weights.mell=1"], "did you mean 'mel'", 2),
        (["--set", "stages.0.batch=3", "--set", "accumulate=2"], "cannot be divided among 2", 2),
        (["--init", "nothing-here"], "nothing-here", 1),
        (["--device", "cuda"], "no cuda device here", 1),
    ],
)
def test_runs_that_cannot_work_are_refused(
    config: Path, tmp_path: Path, arguments: list[str], words: str, status: int
) -> None:
    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("no cuda device: this machine has one")
    found, _, err = call(config, *arguments, "-o", tmp_path / "run")
    assert found == status, err
    assert words in err
    assert err.count("\n") == 1


SHORT = [
    "stages=[{steps=2, seconds=0.1, batch=2}]",
    "data.validation_segments=2",
    "data.workers=0",
    "compile=false",
    "fit_seconds=0.1",
]


@pytest.mark.parametrize("name", ["speech", "decoder", "french"])
def test_the_recipes_for_fine_tuning_work(name: str, tmp_path: Path, tiny_model_folder: Path) -> None:
    data = recordings(tmp_path / "data")
    changes = [*SHORT, f"data.train={data}", "adversarial.start=0", "adversarial.channels=1"]
    arguments = [word for change in changes for word in ("--set", change)]
    recipe = ROOT / "examples" / "train" / f"{name}.toml"
    status, _, err = call(recipe, *arguments, "--init", tiny_model_folder, "-o", tmp_path / "run")
    assert status == 0, err
    before, after = SNAC.from_pretrained(tiny_model_folder), SNAC.from_pretrained(tmp_path / "run" / "model")
    audio = torch.sin(torch.arange(4096) / 9)[None, None]
    same = all(torch.equal(a, b) for a, b in zip(before.encode(audio), after.encode(audio), strict=True))
    assert same or name != "decoder", "with a frozen encoder the codes stay"
    assert not torch.equal(before(audio)[0], after(audio)[0])


def test_the_recipe_of_mini_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("speech", "voices", "music", "sounds"):
        for part in ("train", "val"):
            pack(tmp_path / "corpus" / f"{name}_{part}.npy")
    recipes = tmp_path / "examples" / "train"
    shutil.copytree(ROOT / "examples" / "train", recipes)
    monkeypatch.chdir(tmp_path)
    larger = ["--linear-bins", "213", "--decoder-blocks", "8"]
    parts = {
        "mini-start": "mini-start",
        "mini": "mini-second",
        "mini-large": "mini-third",
        "mini-decoder": "mini-fourth",
        "mini-mel": "mini-fifth",
        "mini-last": "mini",
    }
    for name, folder in parts.items():
        more = ["unquantised_steps=1"] if name == "mini-start" else []
        arguments = [word for change in [*SHORT, *more] for word in ("--set", change)]
        status, _, err = call(recipes / f"{name}.toml", *arguments, "-o", Path("runs") / folder)
        assert status == 0, err
        assert ("codebooks fitted to" in err) == (name == "mini-start")
        if name == "mini-start":
            running = [*larger, "--running-phases"]
            grown_to = {"larger": larger, "running": running, "mini-grown": [*running, "--phase-bins", "64"]}
            for folder, changes in grown_to.items():
                command = ["grow.py", "runs/mini-start/model", f"runs/{folder}", *changes]
                monkeypatch.setattr(sys, "argv", command)
                runpy.run_path(str(recipes / "grow.py"), run_name="__main__")
    names = (
        "mini-start/model",
        "larger",
        "running",
        "mini-grown",
        "mini-third/model",
        "mini-fourth/model",
        "mini-fifth/model",
        "mini/model",
    )
    start, same, running_on, grown, third, fourth, fifth, mini = (
        SNAC.from_pretrained(f"runs/{name}") for name in names
    )
    audio = torch.sin(torch.arange(7680) / 9)[None, None]
    codes = start.encode(audio)
    for model in (same, running_on):
        assert all(torch.equal(a, b) for a, b in zip(codes, model.encode(audio), strict=True))
    torch.testing.assert_close(start.decode(codes), same.decode(codes), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(start.decode(codes), running_on.decode(codes), atol=1e-5)
    torch.testing.assert_close(running_on.decode(codes), grown.decode(codes), atol=1e-5, rtol=1e-4)
    assert mini.config == grown.config == SNAC.from_pretrained("mini").config
    assert not torch.equal(third.decode(codes), grown.decode(codes))
    for before, after in ((third, fourth), (fifth, mini)):
        assert all(torch.equal(a, b) for a, b in zip(before.encode(audio), after.encode(audio), strict=True))
    for before, after in pairwise((third, fourth, fifth, mini)):
        assert not torch.equal(before.decode(codes), after.decode(codes))


def test_the_recipe_of_a_small_24khz_works(tmp_path: Path) -> None:
    for name in ("speech", "voices", "music", "sounds"):
        for part in ("train", "val"):
            pack(tmp_path / "corpus" / f"{name}_{part}.npy")
    recipe = tmp_path / "examples" / "train" / "24khz-small.toml"
    recipe.parent.mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "train" / recipe.name, recipe)
    arguments = [word for change in [*SHORT, "unquantised_steps=1"] for word in ("--set", change)]
    status, _, err = call(recipe, *arguments, "-o", tmp_path / "run")
    assert status == 0, err
    assert "codebooks fitted to" in err
    small = SNAC.from_pretrained(tmp_path / "run" / "model").config
    assert (small.hop_length, small.vq_strides) == (512, (4, 2, 1))
    assert (small.codebook_size, small.codebook_dim) == (4096, 8)


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


def test_a_configuration_that_is_not_there_is_told_in_plain_words(tmp_path: Path) -> None:
    status, _, err = call(tmp_path / "nope.toml")
    assert (status, err) == (
        2,
        f"snac: {tmp_path / 'nope.toml'} cannot be read: no such file: check the name\n",
    )


@pytest.mark.skipif(os.name == "nt", reason="ctrl-C from another process: Windows has no such signal")
def test_ctrl_c_writes_a_checkpoint_and_stops(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.format(steps=100_000))
    command = [sys.executable, "-m", "snaccli", "train", config, "-o", tmp_path / "run"]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        wait_for_steps(tmp_path / "run")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGINT, err
    stopped = err.splitlines()[-1]
    assert stopped.startswith("snac: stopped after step ")
    assert "--resume" in stopped
    step = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"]
    assert f"after step {step} of" in stopped


DISASTER = """
import os, signal, sys
import torch
from snaccli.__main__ import main

# The thread that TensorBoard writes by would meet the limit as well, now before the checkpoint, now after it.
sys.modules["tensorboard"] = None

def killed(state, file):
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

def on_full_disk(state, file):
    import resource
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, former[1]))
    try:
        save(state, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)

def save_or_not(state, file):
    second = state.get("step") == 8 and "optimizer" in state
    (disaster if second else save)(state, file)

save, disaster = torch.save, globals()[sys.argv.pop(1)]
torch.save = save_or_not
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL and limits on the size of files: not on Windows")
@pytest.mark.parametrize("disaster", ["killed", "on_full_disk"])
def test_what_strikes_while_a_checkpoint_is_written_costs_nothing_but_the_steps_since_the_last(
    config: Path, tmp_path: Path, disaster: str
) -> None:
    config.write_text(CONFIG.format(steps=12))
    one_thread = ("--set", "threads=1")
    command = [sys.executable, "-c", DISASTER, disaster, "train", config, *one_thread, "-o", tmp_path / "cut"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    if disaster == "killed":
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        assert done.returncode == 1, done.stderr
        last = done.stderr.splitlines()[-1]
        assert last.startswith(f"snac: {tmp_path / 'cut' / 'last.pt'}: the checkpoint cannot be written: ")
        assert last.endswith("; the former checkpoint stands")
        assert done.stderr.count("snac: ") == 1
    threads = torch.get_num_threads()
    try:
        status, _, err = call(config, *one_thread, "-o", tmp_path / "cut", "--resume")
        assert status == 0, err
        assert "resumed after step 4 of 12" in err
        assert call(config, *one_thread, "-o", tmp_path / "whole")[0] == 0
    finally:
        torch.set_num_threads(threads)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights, to the bit, and the same log but for the clock."""
    for name in ("last.pt", "best.pt"):
        states = [torch.load(folder / name, weights_only=True) for folder in (one, other)]
        assert states[0]["step"] == states[1]["step"]
        for key, weight in states[0]["model"].items():
            assert torch.equal(weight, states[1]["model"][key]), (name, key)
    models = [(folder / "model" / "model.safetensors").read_bytes() for folder in (one, other)]
    assert models[0] == models[1]
    logs = [
        [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for folder in (one, other)
    ]
    for rows in logs:
        for row in rows:
            row.pop("seconds_a_step", None)
    assert logs[0] == logs[1]
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}


def test_several_processes_need_accelerate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert processes.this_process("cpu", environ={}).count == 1
    for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"):
        with pytest.raises(SnacError, match=r"pip install 'snaccli\[train\]'"):
            processes.this_process("cpu", environ={name: "2"})


def launched(*arguments: str | Path) -> subprocess.Popen[str]:
    """`snac train` as two processes, by the launcher that accelerate uses."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "snaccli", "train", *map(str, arguments), "--device", "cpu"]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_two_processes_complain_once(config: Path, tmp_path: Path) -> None:
    with launched(config, "-o", tmp_path / "run", "--set", "revive_evry=1") as launcher:
        _, err = launcher.communicate(timeout=300)
    assert launcher.returncode != 0
    told = [line for line in err.splitlines() if line.startswith("snac: ")]
    assert len(told) == 1, err
    assert "did you mean 'revive_every'" in told[0]


@pytest.mark.skipif(os.name == "nt", reason="ctrl-C from another process: Windows has no such signal")
def test_ctrl_c_stops_two_processes_with_a_checkpoint(config: Path, tmp_path: Path) -> None:
    config.write_text(CONFIG.format(steps=100_000))
    with launched(config, "-o", tmp_path / "run") as launcher:
        wait_for_steps(tmp_path / "run")
        launcher.send_signal(signal.SIGINT)
        _, err = launcher.communicate(timeout=300)
    told = [line for line in err.splitlines() if line.startswith("snac: ")]
    assert len(told) == 1, err
    step = torch.load(tmp_path / "run" / "last.pt", weights_only=True)["step"]
    assert f"stopped after step {step} of" in told[0]


def wait_for_steps(run: Path) -> None:
    """Until a run has logged ten of them."""
    log = run / "log.jsonl"
    deadline = time.monotonic() + 240
    while not (log.exists() and '"step": 10,' in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)


def test_two_processes_equal_one(config: Path, tmp_path: Path) -> None:
    """The same losses at every step on the same global batch, but for rounding."""
    # The rate falls from the first step on: no codeword is revived, which would make much of a near tie.
    changes = [
        "unquantised_steps=0",
        "decay=1.0",
        "learning_rate=1e-4",
        "accumulate=2",
        "weights.adversarial=1",
        "weights.feature=1",
        "seed=1",  # with which no latent lies between two codewords, where rounding chooses
        "threads=1",  # as the two have: sums in another order would make other clusters of first codebooks
    ]
    changes += ["adversarial.channels=1", "adversarial.windows=[128]"]
    arguments = ["--device", "cpu", *(word for change in changes for word in ("--set", change))]
    threads = torch.get_num_threads()
    try:
        status, _, err = call(config, *arguments, "-o", tmp_path / "one", "-v")
    finally:
        torch.set_num_threads(threads)
    assert status == 0, err
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "snaccli", "train", config, *arguments, "-o", tmp_path / "two"]
    ranks = [
        subprocess.Popen(
            command,
            env=environment(
                WORLD_SIZE="2",
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=port,
                ACCELERATE_USE_CPU="true",
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank, process in enumerate(ranks):
        _, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert ("baseline" in err) == (rank == 0), "one of them speaks"
    logs = [
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert len(logs[0]) == len(logs[1])
    for one, two in zip(*logs, strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"seconds_a_step"}:
            values = [row[name].values() if isinstance(row[name], dict) else row[name] for row in (one, two)]
            values = [list(v) if not isinstance(v, (int, float)) else v for v in values]
            close = 0.05 if name == "perplexity" else 2e-3
            # Per cent are rounded to two places, where the losses' last digits show.
            least = 0.1 if name == "improvement_percent" else 2e-4
            assert values[0] == pytest.approx(values[1], rel=close, abs=least), (name, one, two)
    weights = [torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("one", "two")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weight, weights[1][name], rtol=1e-3, atol=2e-4)
