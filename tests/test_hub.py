"""Finding and fetching models, against a stand-in for the Hub on this machine."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from snac.errors import ModelError, ModelNotFoundError
from snac.hub import locate as hub
from snac.hub import registry
from snac.hub.locate import ModelFiles, cached, locate, pull, recorded_fingerprint, remember
from snac.hub.registry import KnownFile, KnownModel

from .hub_standin import Repository, StandIn

CONFIG = json.dumps({"sampling_rate": 24000}).encode()
SAFE, BIN = "model.safetensors", "pytorch_model.bin"
WEIGHTS = os.urandom(3000)
FINGERPRINT = "0123456789abcdef"


@pytest.fixture
def server(monkeypatch) -> Iterator[StandIn]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with StandIn() as stand_in:
        stand_in.repositories["me/voice"] = Repository()
        yield stand_in


@pytest.fixture
def repository(server) -> Repository:
    return server.repositories["me/voice"]


@pytest.fixture
def kwargs(server, tmp_path) -> dict:
    """What makes the Hub's client talk to the stand-in, and to nothing else."""
    return {"endpoint": server.url, "cache_dir": tmp_path / "cache", "token": False}


@pytest.fixture
def no_waiting(monkeypatch) -> None:
    def refuse(seconds):
        raise AssertionError(f"waited {seconds} s")

    monkeypatch.setattr(time, "sleep", refuse)


def failure(function, *args, error=ModelNotFoundError, **kwargs) -> str:
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def overwrite(path: Path, content: bytes) -> None:
    """Changes a cached file where it lies, behind its link, so that the time of modification differs."""
    before = path.stat().st_mtime_ns
    path.resolve().write_bytes(content)
    os.utime(path, ns=(before + 10**9, before + 10**9))


def content(files: ModelFiles) -> tuple[bytes, bytes]:
    return files.config.read_bytes(), files.weights.read_bytes()


# Downloading


def test_a_model_is_downloaded_once(server, repository, kwargs):
    commit = repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    assert cached("me/voice", **kwargs) is None
    files = locate("me/voice", **kwargs)
    assert content(files) == (CONFIG, WEIGHTS)
    assert files.name == "me/voice"
    assert files.origin == f"me/voice at {commit[:12]}"
    assert files.size_on_disk == len(CONFIG) + len(WEIGHTS)
    assert files.cache_folder == kwargs["cache_dir"] / "models--me--voice"
    server.requests.clear()
    assert locate("me/voice", **kwargs) == files
    assert cached("me/voice", **kwargs) == files
    assert server.requests == []


def test_what_is_cached_needs_no_network(server, repository, kwargs, monkeypatch):
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    files = locate("me/voice", **kwargs)
    kwargs["endpoint"] = "http://127.0.0.1:9"
    assert locate("me/voice", **kwargs) == files
    assert pull("me/voice", **kwargs) == files
    assert locate("me/voice", local_files_only=True, **kwargs) == files
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert locate("me/voice", **kwargs) == files
    assert pull("me/voice", **kwargs) == files


def test_a_prior_comes_along(server, repository, kwargs):
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    assert locate("me/voice", **kwargs).prior is None
    old = repository.commit({"config.json": CONFIG, SAFE: WEIGHTS, "prior.safetensors": b"first"})
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS, "prior.safetensors": b"second"})
    assert locate("me/voice", **kwargs).prior is None  # what is in the cache is used as it is
    files = pull("me/voice", **kwargs)
    assert files.prior.read_bytes() == b"second"
    assert files.size_on_disk == len(CONFIG) + len(WEIGHTS)
    server.requests.clear()
    assert locate("me/voice", **kwargs).prior == files.prior
    assert server.requests == []
    assert locate(f"me/voice@{old}", **kwargs).prior.read_bytes() == b"first"


def test_a_prior_alone_is_no_model(repository, kwargs):
    repository.commit({"config.json": CONFIG, "prior.safetensors": b"prior"})
    assert "has no weights" in failure(locate, "me/voice", **kwargs)


def test_a_prior_that_cannot_be_fetched_is_told(server, repository, kwargs, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS, "prior.safetensors": b"prior"})
    server.fault = lambda method, path: "500" if path.endswith("prior.safetensors") else None
    assert "the download broke off" in failure(locate, "me/voice", **kwargs)


@pytest.mark.parametrize("large", [True, False])
def test_safetensors_come_first_and_pickles_second(repository, kwargs, large):
    repository.large = large
    repository.commit({"config.json": CONFIG, BIN: WEIGHTS})
    assert locate("me/voice", **kwargs).weights.name == BIN
    repository.commit({"config.json": CONFIG, BIN: b"other", SAFE: WEIGHTS})
    files = pull("me/voice", **kwargs)
    assert files.weights.name == SAFE
    assert content(files) == (CONFIG, WEIGHTS)


def test_only_pull_asks_for_something_newer(repository, kwargs):
    old = repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    locate("me/voice", **kwargs)
    new = repository.commit({"config.json": CONFIG, SAFE: b"newer" * 100})
    assert content(locate("me/voice", **kwargs)) == (CONFIG, WEIGHTS)
    assert content(pull("me/voice", **kwargs)) == (CONFIG, b"newer" * 100)
    assert locate("me/voice", **kwargs).origin.endswith(new[:12])
    assert content(locate(f"me/voice@{old}", **kwargs)) == (CONFIG, WEIGHTS)
    assert content(locate("me/voice", revision=old, **kwargs)) == (CONFIG, WEIGHTS)


def test_force_download_asks_for_something_newer(repository, kwargs):
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    locate("me/voice", **kwargs)
    repository.commit({"config.json": CONFIG, SAFE: b"newer" * 100})
    assert content(locate("me/voice", force_download=True, **kwargs)) == (CONFIG, b"newer" * 100)


def test_revisions(repository, kwargs):
    repository.commit({"config.json": CONFIG, SAFE: b"of the branch"}, branch="refs/pr/1")
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    assert content(locate("me/voice@refs/pr/1", **kwargs)) == (CONFIG, b"of the branch")
    assert content(locate("me/voice", **kwargs)) == (CONFIG, WEIGHTS)
    assert content(locate("me/voice@refs/pr/1", revision="refs/pr/1", **kwargs))[1] == b"of the branch"
    message = failure(locate, "me/voice@main", revision="refs/pr/1", **kwargs)
    assert "revision 'refs/pr/1' was asked for, too" in message


def test_both_files_come_from_one_commit(server, repository, kwargs):
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})

    def branch_moves(method, path):
        if path.endswith(SAFE) and len(repository.commits) == 1:
            repository.commit({"config.json": b"{}", SAFE: b"of another configuration"})

    server.fault = branch_moves
    assert content(locate("me/voice", **kwargs)) == (CONFIG, WEIGHTS)
    assert len(repository.commits) == 2


def test_a_model_in_a_subfolder(repository, kwargs):
    repository.commit({"small/config.json": CONFIG, f"small/{BIN}": WEIGHTS})
    files = locate("me/voice", subfolder="small", **kwargs)
    assert content(files) == (CONFIG, WEIGHTS)
    assert cached("me/voice", subfolder="small", **kwargs) == files
    assert cached("me/voice", **kwargs) is None
    remember(files, FINGERPRINT)
    assert recorded_fingerprint(files) == FINGERPRINT


def test_a_model_in_a_folder_of_choice(repository, kwargs, tmp_path):
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    files = locate("me/voice", local_dir=tmp_path / "here", **kwargs)
    assert files.weights == tmp_path / "here" / SAFE
    assert content(files) == (CONFIG, WEIGHTS)
    remember(files, FINGERPRINT)
    assert recorded_fingerprint(files) is None
    assert content(locate(tmp_path / "here")) == (CONFIG, WEIGHTS)


def test_published_models_have_their_short_name(server, kwargs):
    server.repositories["hubertsiuzdak/snac_32khz"] = Repository()
    server.repositories["hubertsiuzdak/snac_32khz"].commit({"config.json": CONFIG, BIN: WEIGHTS})
    assert locate("hubertsiuzdak/snac_32khz", **kwargs).name == "32khz"
    assert locate("32khz", **kwargs).name == "32khz"


def test_an_argument_the_client_does_not_know_is_the_callers_mistake(repository, kwargs):
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    with pytest.raises(TypeError, match="chache_dir"):
        locate("me/voice", chache_dir="x", **kwargs)


# What can go wrong on the way


def test_no_such_repository(kwargs):
    message = failure(locate, "me/nothing", **kwargs)
    assert "has no repository 'me/nothing', or it is private" in message
    assert "hf auth login" in message


def test_no_such_revision(repository, kwargs):
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    assert failure(locate, "me/voice@v9", **kwargs) == "me/voice: has no revision 'v9'"
    assert failure(locate, "me/voice@" + "0" * 40, **kwargs).startswith("me/voice: has no revision '000")


def test_repositories_that_hold_no_model(repository, kwargs):
    repository.commit({SAFE: WEIGHTS})
    assert failure(locate, "me/voice", **kwargs).startswith("me/voice: has no config.json, so")
    repository.commit({"config.json": CONFIG})
    message = failure(locate, "me/voice", **kwargs)
    assert message.startswith("me/voice: has no weights (model.safetensors or pytorch_model.bin)")


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("403 GatedRepo", "me/voice: access is restricted: ask for it at https://127.0.0.1"),
        ("401 RepoNotFound", "has no repository 'me/voice', or it is private"),
        ("403", "refuses access (403): check the token"),
        ("500", "answers 500, try again later): load it on a connected machine"),
        ("503", "answers 503, try again later"),
        ("429", "answers 429, try again later"),
        ("portal", "does not answer as the Hub does; is there a sign-in page or a proxy in between?"),
    ],
)
def test_refusals_are_told_at_once(server, repository, kwargs, no_waiting, fault, expected):
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    server.fault = lambda method, path: fault
    assert expected in failure(locate, "me/voice", **kwargs)
    assert len(server.requests) == 1


def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_offline_message(message: str, kwargs: dict, name: str = "me/voice") -> None:
    assert f"model {name!r} is not on this machine" in message
    assert "load it on a connected machine" in message
    assert f"copy the folder models--me--voice of its cache into {kwargs['cache_dir']} here" in message
    assert "any folder with config.json and weights" in message


@pytest.mark.usefixtures("no_waiting")
def test_without_network_the_message_says_what_to_do(server, kwargs, monkeypatch):
    kwargs["endpoint"] = f"http://127.0.0.1:{unused_port()}"
    message = failure(locate, "me/voice", **kwargs)
    check_offline_message(message, kwargs)
    assert f"{kwargs['endpoint'].removeprefix('http://')} cannot be reached: " in message
    check_offline_message(failure(pull, "me/voice", **kwargs), kwargs)
    kwargs["endpoint"] = server.url
    message = failure(locate, "me/voice@v2", local_files_only=True, **kwargs)
    check_offline_message(message, kwargs, "me/voice@v2")
    assert "(local_files_only is set)" in message
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "(HF_HUB_OFFLINE is set)" in failure(locate, "me/voice", **kwargs)
    assert server.requests == []


def test_a_server_that_never_answers(kwargs):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        kwargs["endpoint"] = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        message = failure(locate, "me/voice", etag_timeout=0.2, **kwargs)
    check_offline_message(message, kwargs)


def test_a_download_that_breaks_off(server, repository, kwargs, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # the client tries again every second
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    server.fault = lambda method, path: "truncate" if path.startswith("/blobs/") else None
    message = failure(locate, "me/voice", **kwargs)
    assert message.startswith("me/voice: the download broke off (")
    assert message.endswith("): load the model again")
    assert cached("me/voice", **kwargs) is None
    server.fault = lambda method, path: None
    assert content(pull("me/voice", **kwargs)) == (CONFIG, WEIGHTS)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "me/voice: no space left in {cache}: make room"),
        (RuntimeError("Data error: No space left on device (os error 28)"), "no space left in {cache}"),
        (OSError(errno.EACCES, "Permission denied"), "me/voice: cannot write to {cache}: set HF_HOME"),
        (RuntimeError("something\nelse"), "the download broke off (something): load the model again"),
    ],
)
def test_a_disk_that_refuses(repository, kwargs, monkeypatch, error, expected):
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})

    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    assert expected.format(cache=kwargs["cache_dir"]) in failure(locate, "me/voice", **kwargs)


def test_the_environment_is_respected_and_nothing_else_is_printed(server, repository, tmp_path):
    """HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE are read when the client is imported, so by a fresh process."""
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    code = (
        "from snac.errors import SnacError\n"
        "from snac.hub.locate import locate\n"
        "for name in ('me/voice', 'me/other'):\n"
        "    try:\n"
        "        print(locate(name).weights)\n"
        "    except SnacError as error:\n"
        "        print(error)\n"
    )
    environment = server.environment(HF_HOME=str(tmp_path / "home"))

    def run(**more: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment | more, capture_output=True, text=True, check=True
        )
        assert done.stderr == ""
        return done.stdout.splitlines()

    weights, refusal = run()
    assert Path(weights).read_bytes() == WEIGHTS
    assert Path(weights).is_relative_to(tmp_path / "home" / "hub" / "models--me--voice")
    assert "has no repository 'me/other'" in refusal
    again, refusal = run(HF_HUB_OFFLINE="1")
    assert again == weights
    assert "model 'me/other' is not on this machine (HF_HUB_OFFLINE is set)" in refusal
    again, refusal = run(HF_ENDPOINT=f"http://127.0.0.1:{unused_port()}")
    assert again == weights
    assert "cannot be reached" in refusal


# Damage


@pytest.fixture(params=[True, False], ids=["large", "small"])
def loaded(request, repository, kwargs) -> ModelFiles:
    """A model that was downloaded and loaded; as a large file the Hub told its hash, as a small one not."""
    repository.large = request.param
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    files = locate("me/voice", **kwargs)
    remember(files, FINGERPRINT)
    return files


def test_wrong_bytes_in_a_download_are_noticed(server, repository, kwargs):
    repository.commit({"config.json": CONFIG, SAFE: WEIGHTS})
    server.fault = lambda method, path: "swap" if path.startswith("/blobs/") else None
    message = failure(locate, "me/voice", error=ModelError, **kwargs)
    assert f"{SAFE}: is not the file that was downloaded: its SHA-256 begins with " in message
    assert "fetch it again: snac.hub.locate.pull('me/voice')" in message
    assert failure(pull, "me/voice", error=ModelError, **kwargs) == message
    server.fault = lambda method, path: None
    assert content(pull("me/voice", **kwargs)) == (CONFIG, WEIGHTS)


def test_changed_weights_are_noticed_and_pull_mends_them(loaded, kwargs):
    overwrite(loaded.weights, bytes(len(WEIGHTS)))
    message = failure(locate, "me/voice", error=ModelError, **kwargs)
    assert f"{loaded.weights}: is not the file that was " in message
    assert recorded_fingerprint(loaded) is None
    assert content(pull("me/voice", **kwargs)) == (CONFIG, WEIGHTS)
    assert content(locate("me/voice", **kwargs)) == (CONFIG, WEIGHTS)


def test_a_changed_configuration_is_noticed(loaded, kwargs):
    overwrite(loaded.config, b"{}")
    message = failure(locate, "me/voice", error=ModelError, **kwargs)
    assert "config.json: is not the file that was first used: it has 2 bytes instead of" in message
    assert content(pull("me/voice", **kwargs)) == (CONFIG, WEIGHTS)


def test_an_unchanged_file_is_not_read_again(loaded, kwargs, monkeypatch):
    monkeypatch.setattr(hub, "sha256", lambda path: pytest.fail("read"))
    assert locate("me/voice", **kwargs) == loaded
    assert recorded_fingerprint(loaded) == FINGERPRINT
    remember(loaded, FINGERPRINT)


def test_a_touched_file_is_read_and_found_unchanged(loaded, kwargs):
    overwrite(loaded.weights, WEIGHTS)
    assert locate("me/voice", **kwargs) == loaded
    assert recorded_fingerprint(loaded) is None
    remember(loaded, FINGERPRINT)
    assert recorded_fingerprint(loaded) == FINGERPRINT


def test_the_record_says_what_it_should(loaded):
    entries = hub.read_record(loaded.cache_folder)
    assert {name.partition("/")[2]: entry.fingerprint for name, entry in entries.items()} == {
        "config.json": "",
        SAFE: FINGERPRINT,
    }
    for name, entry in entries.items():
        path = loaded.cache_folder / "snapshots" / name
        assert entry.size == path.stat().st_size
        assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_damaged_record_counts_as_none(loaded, kwargs):
    path = loaded.cache_folder / hub.RECORD_FILE
    whole = path.read_bytes()
    digit = whole.index(hashlib.sha256(WEIGHTS).hexdigest().encode())
    damaged = [
        whole[:digit] + b"x" + whole[digit + 1 :],
        whole[:-20],
        b"",
        b"[]",
        b"{}",
        b"\xff" * 9,
        b"[" * 9999,
    ]
    for content_ in [*damaged, b'{"checksum": 1, "files": []}', b"null"]:
        path.write_bytes(content_)
        assert hub.read_record(loaded.cache_folder) == {}
        assert locate("me/voice", **kwargs) == loaded
        assert recorded_fingerprint(loaded) is None
    remember(loaded, FINGERPRINT)
    assert path.read_bytes() == whole


def test_a_record_that_cannot_be_written_is_done_without(loaded, kwargs, monkeypatch):
    (loaded.cache_folder / hub.RECORD_FILE).unlink()

    def refuse(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(hub, "replacing", refuse)
    remember(loaded, FINGERPRINT)
    assert recorded_fingerprint(loaded) is None
    assert locate("me/voice", **kwargs) == loaded


def test_the_record_stays_small(tmp_path):
    entries = {f"{number}/{SAFE}": hub.Entry(number, 0, "0" * 64, FINGERPRINT) for number in range(500)}
    hub.write_record(tmp_path, entries)
    kept = hub.read_record(tmp_path)
    assert len(kept) == 200
    assert list(kept.items()) == list(entries.items())[-200:]
    assert [path.name for path in tmp_path.iterdir()] == [hub.RECORD_FILE]


def test_published_weights_are_known(server, kwargs, monkeypatch):
    known = KnownFile(len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    model = KnownModel("known", "", "me/voice", registry.MODELS["24khz"].config, {BIN: known})
    monkeypatch.setattr(registry, "MODELS", {"known": model})
    repository = server.repositories["me/voice"]
    repository.commit({"config.json": CONFIG, BIN: WEIGHTS})
    assert locate("known", **kwargs).weights.read_bytes() == WEIGHTS
    repository.commit({"config.json": CONFIG, BIN: WEIGHTS[:-1]})
    message = failure(pull, "known", error=ModelError, **kwargs)
    assert f"is not the file that was published: it has {len(WEIGHTS) - 1} bytes instead of 3000" in message
    assert failure(locate, "known", error=ModelError, **kwargs) == message
    repository.commit({"config.json": CONFIG, BIN: WEIGHTS[::-1]})
    message = failure(pull, "known", error=ModelError, **kwargs)
    assert "is not the file that was published: its SHA-256 begins with" in message
    assert "snac.hub.locate.pull('known')" in message
    # Whoever names a revision means that one, whatever it holds.
    assert locate("known@main", **kwargs).weights.read_bytes() == WEIGHTS[::-1]


def test_the_published_24khz_weights_are_known():
    known = registry.MODELS["24khz"].files[BIN]
    assert known.size == 79488254
    assert known.sha256 == "4b8164cc6606bfa627f1a784734c1e539891518f1191ed9194fe1e3b9b4bff40"


# Folders


def test_a_folder(tmp_path):
    folder = tmp_path / "voice"
    folder.mkdir()
    assert failure(locate, folder) == f"{folder}: has no config.json, so it is not the folder of a model"
    (folder / "config.json").write_bytes(CONFIG)
    assert failure(locate, folder) == f"{folder}: has no weights (model.safetensors or pytorch_model.bin)"
    assert cached(folder) is None
    (folder / BIN).write_bytes(b"pickled")
    assert locate(str(folder)).weights == folder / BIN
    (folder / SAFE).write_bytes(WEIGHTS)
    files = locate(folder)
    assert content(files) == (CONFIG, WEIGHTS)
    assert (files.name, files.origin, files.cache_folder) == ("voice", f"folder {folder}", None)
    assert pull(folder) == cached(folder) == files
    remember(files, FINGERPRINT)
    assert recorded_fingerprint(files) is None
    assert len(list(folder.iterdir())) == 3


def test_a_shipped_model(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_SHIPPED", tmp_path)
    assert cached("mini") is None
    assert "the shipped model 'mini' is missing: install the package again" in failure(locate, "mini")
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "config.json").write_bytes(CONFIG)
    (tmp_path / "mini" / SAFE).write_bytes(WEIGHTS)
    files = locate("mini", revision="ignored", token=False)
    assert content(files) == (CONFIG, WEIGHTS)
    assert (files.name, files.origin) == ("mini", "shipped")


@pytest.mark.parametrize("symlinks", [True, False])
def test_a_cache_folder_from_another_machine(loaded, kwargs, tmp_path, symlinks):
    """As the message without network says: copied into the cache here, or given as a folder."""
    name = "models--me--voice"
    shutil.copytree(loaded.cache_folder, tmp_path / "stick" / name, symlinks=symlinks)
    kwargs |= {"cache_dir": tmp_path / "other", "endpoint": "http://127.0.0.1:9"}
    given = locate(tmp_path / "stick" / name)
    assert content(given) == (CONFIG, WEIGHTS)
    assert (given.name, given.origin) == ("me/voice", f"folder {tmp_path / 'stick' / name}")
    shutil.copytree(tmp_path / "stick" / name, tmp_path / "other" / name, symlinks=symlinks)
    assert content(locate("me/voice", **kwargs)) == (CONFIG, WEIGHTS)
    overwrite(given.weights, b"changed")
    assert "is not the file that was" in failure(locate, tmp_path / "stick" / name, error=ModelError)
    given.weights.unlink()
    assert "has no complete copy of the revision 'main'" in failure(locate, tmp_path / "stick" / name)


def test_a_cache_that_makes_no_sense_is_not_used(tmp_path):
    folder = tmp_path / "models--me--voice"
    for text in ("", "../../..", "0" * 39, "0" * 40):
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / "main").write_text(text)
        assert cached("me/voice", cache_dir=tmp_path) is None
    (folder / "refs" / "main").write_bytes(b"\xff" * 40)
    assert cached("me/voice", cache_dir=tmp_path) is None


def test_model_files_are_plain_values(tmp_path):
    files = ModelFiles(registry.resolve("24khz"), tmp_path / "config.json", tmp_path / SAFE, "somewhere")
    assert files.name == "24khz"
    with pytest.raises(dataclasses.FrozenInstanceError):
        files.origin = "elsewhere"
    assert hub.recorded_fingerprint(files) is None
