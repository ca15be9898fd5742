"""Exports on a Ray cluster of two local workers: the shards of one machine, whoever dies on the way."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from snaccli.cli.app import run
from snaccli.cli.ui.console import Console

pytestmark = [
    # Looked for, not imported: it reads its settings when it is.
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="worker processes are found in /proc"),
]

ROOT = Path(__file__).resolve().parent.parent
RATE = 16000
CLUSTER = """
import sys, ray
place = ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
print(place.address_info["address"], flush=True)
sys.stdin.read()
"""


OURS = {
    "PYTHONPATH": str(ROOT),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,  # of this cluster alone, on the loopback
    "HF_HUB_OFFLINE": "1",
}


@pytest.fixture(scope="module")
def environment():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in OURS.items():
            patch.setenv(name, value)
        yield dict(os.environ)


@pytest.fixture(scope="module")
def cluster(environment):
    """A cluster of two processors: its address, and the process whose descendants are its own."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as process:
        address = process.stdout.readline().strip()
        assert address
        yield address, process.pid
        process.stdin.close()
        process.wait(300)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    console = Console(io.StringIO(), io.StringIO(), {})
    status = run([str(argument) for argument in arguments], console)
    return status, console.stdout.getvalue(), console.stderr.getvalue()


def write(count, seconds=0.2):
    for seed in range(count):
        path = Path("in", f"{seed:03}.wav")
        path.parent.mkdir(exist_ok=True)
        samples = 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE) + 31 * seed)
        soundfile.write(path, samples, RATE)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def paths(folder):
    return [
        json.loads(line)["path"]
        for shard in sorted(Path(folder).glob("tokens-*.jsonl"))
        for line in shard.read_text().splitlines()
    ]


def workers(root):
    """The processes of workers below a process."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
                names[int(entry.name)] = (entry / "cmdline").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
    found = []
    for pid, name in names.items():
        if name.startswith("ray::_Worker"):
            above = pid
            while above > 1 and above != root:
                above = parents.get(above, 0)
            if above == root:
                found.append(pid)
    return found


def started(model, address, environment, *options):
    command = [sys.executable, "-m", "snaccli", "tokens", "export", "in", "-o", "out", "-m", str(model)]
    command += ["--shard-size", "2", "--cluster", address, *options]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def wait_for(what, seconds=300):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_cluster_makes_the_shards_of_one_machine(tiny_model_folder, cluster):
    write(7)
    Path("in/003.wav").write_bytes(b"RIFF of nothing")
    export = ["tokens", "export", "in", "-m", tiny_model_folder, "--shard-size", 3]
    alone = call(*export, "-o", "alone", "-q")
    status, out, err = call(*export, "-o", "out", "--cluster", cluster[0], "--json")
    assert (alone[0], status) == (1, 1)
    told = json.loads(out)
    assert (told["exported"], told["units"]) == (6, 3)
    assert [failure["source"].rpartition("/")[2] for failure in told["failed"]] == ["003.wav"]
    assert "003.wav" in err
    assert contents("out") == contents("alone")
    assert sorted(contents("out")) == [f"tokens-0000{n}.jsonl" for n in range(3)]
    write(8)  # the bad one is good now, and there is a new one
    for name, where in (("alone", []), ("out", ["--cluster", cluster[0]])):
        status, _, err = call(*export, "-o", name, "--skip-existing", *where)
        assert status == 0
        assert "6 of 8 recordings are there already" in err
    assert contents("out") == contents("alone")
    status, _, err = call(*export, "-o", "out", "--skip-existing", "--cluster", cluster[0], "--levels", "2")
    assert (status, err.count("\n")) == (1, 1)
    assert "strides" in err


def test_a_cluster_encodes_the_files_of_one_machine(tiny_model_folder, cluster):
    write(5)
    Path("in/003.wav").write_bytes(b"RIFF of nothing")
    encode = ["encode", "in", "-m", tiny_model_folder]
    assert call(*encode, "-o", "alone", "-q")[0] == 1
    status, out, err = call(*encode, "-o", "out", "--cluster", cluster[0], "--json")
    assert status == 1
    assert json.loads(out)["encoded"] == 4
    assert "003.wav" in err
    assert contents("out") == contents("alone")
    assert len(contents("out")) == 4
    write(6)
    status, _, err = call(*encode, "-o", "out", "--cluster", cluster[0], "--skip-existing")
    assert status == 0
    assert "4 files skipped" in err
    assert len(contents("out")) == 6
    status, _, err = call(*encode, "-o", "out", "--cluster", cluster[0])
    assert status == 1
    assert "exists already" in err


def test_a_worker_that_is_killed_is_replaced(tiny_model_folder, cluster, environment):
    write(12, 10.0)
    address, root = cluster
    with started(tiny_model_folder, address, environment, "-q") as driver:
        wait_for(lambda: Path("out/tokens-00000.jsonl").exists() or Path("out/tokens-00001.jsonl").exists())
        os.kill(workers(root)[0], signal.SIGKILL)
        err = driver.stderr.read()
    assert driver.returncode == 0, err
    assert paths("out") == [f"{n:03}.wav" for n in range(12)]
    assert all(name.startswith("tokens-") for name in os.listdir("out"))


def test_a_driver_that_is_killed_leaves_whole_shards_to_go_on_from(tiny_model_folder, cluster, environment):
    write(12, 10.0)
    address, root = cluster
    with started(tiny_model_folder, address, environment) as driver:
        wait_for(lambda: list(Path("out").glob("*.jsonl")))
        driver.kill()
    wait_for(lambda: not workers(root))
    # A worker that is killed within a shard leaves its temporary file, which is no shard.
    before = {name: data for name, data in contents("out").items() if not name.startswith(".snac-")}
    assert 0 < len(paths("out")) < 12
    with started(tiny_model_folder, address, environment, "--skip-existing") as driver:
        err = driver.stderr.read()
    assert driver.returncode == 0, err
    assert f"{len(before) * 2} of 12 recordings are there already" in err
    assert sorted(paths("out")) == [f"{n:03}.wav" for n in range(12)]
    assert before.items() <= contents("out").items()


def test_an_interrupt_ends_the_run_and_keeps_what_is_done(tiny_model_folder, cluster, environment):
    write(12, 10.0)
    address, root = cluster
    with started(tiny_model_folder, address, environment) as driver:
        wait_for(lambda: list(Path("out").glob("*.jsonl")))
        driver.send_signal(signal.SIGINT)
        err = driver.stderr.read()
    assert driver.returncode == -signal.SIGINT
    assert "not done" in err
    assert 0 < len(paths("out")) < 12
    wait_for(lambda: not workers(root))


def test_what_cannot_work_is_one_line(tiny_model_folder, cluster):
    write(2)
    export = ["tokens", "export", "in", "-o", "out"]
    for options, message in (
        (["-m", "absent", "--cluster", cluster[0]], "no model 'absent'"),
        (["-m", tiny_model_folder, "--cluster", cluster[0], "--cpus-per-worker", "64"], "no worker of 64"),
        (["-m", tiny_model_folder, "--cluster", cluster[0], "--gpus-per-worker", "1"], "accelerators"),
    ):
        status, _, err = call(*export, *options)
        assert status != 0
        assert message in err
        assert "defect" not in err
    status, _, err = call("tokens", "export", "in/000.wav", "-m", tiny_model_folder, "--cluster", "local")
    assert (status, err.count("\n")) == (2, 1)
    assert not list(Path().glob("out/*"))
