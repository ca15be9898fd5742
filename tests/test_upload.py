"""Publishing a model, against a stand-in for the Hub on this machine."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from snac.errors import ModelError
from snac.hub.locate import locate
from snac.hub.network import push
from snaccli.cli.app import run
from snaccli.cli.ui.console import Console

from .hub_standin import StandIn


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with StandIn() as stand_in:
        yield stand_in


@pytest.fixture
def model(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """A model's folder, with a card, and something that is nobody's business."""
    folder = Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))
    (folder / "README.md").write_text("# tiny")
    (folder / "diary.txt").write_text("private")
    return folder


def test_a_model_is_published_and_fetched_again(
    server: StandIn, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        # Older clients ask the Hub that the environment names for some things, whatever they are told.
        patch.setattr(constants, "ENDPOINT", server.url)
        url = push(model, "me/tiny", endpoint=server.url, token=server.token)
    assert url == f"{server.url}/me/tiny"
    (files,) = server.repositories["me/tiny"].commits.values()
    assert files.keys() == {"config.json", "model.safetensors", "pytorch_model.bin", "README.md"}
    assert files["model.safetensors"] == (model / "model.safetensors").read_bytes()
    found = locate("me/tiny", endpoint=server.url, cache_dir=tmp_path / "cache", token=False)
    assert found.weights.read_bytes() == (model / "model.safetensors").read_bytes()
    # A second time it is another commit of the same repository.
    (model / "README.md").write_text("# tiny, again")
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    push(model, "me/tiny", endpoint=server.url, token=server.token)
    assert len(server.repositories) == 1


def test_the_command_says_where_it_is(server: StandIn, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", server.token)
    console = Console(io.StringIO(), io.StringIO(), {})
    status = run(["models", "push", str(model), "me/tiny", "--json"], console)
    assert status == 0, console.stderr.getvalue()  # type: ignore[attr-defined]
    value = json.loads(console.stdout.getvalue())  # type: ignore[attr-defined]
    assert value["repository"] == "me/tiny"
    assert "me/tiny" in server.repositories


@pytest.mark.parametrize(
    ("fault", "words"),
    [("401", "hf auth login"), ("403", "may not write there"), ("400", r"the Hub refused \(400\)")],
)
def test_refusals_say_what_to_do(server: StandIn, model: Path, fault: str, words: str) -> None:
    server.fault = lambda method, path: fault
    with pytest.raises(ModelError, match=words):
        push(model, "me/tiny", endpoint=server.url, token="hf_wrong")


def test_an_unreachable_hub_is_named(server: StandIn, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="cannot be reached"):
        push(model, "me/tiny", endpoint="http://127.0.0.1:9", token="hf_secret")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        push(model, "me/tiny", endpoint="http://127.0.0.1:9", token="hf_secret")


def test_what_is_no_model_is_not_published(server: StandIn, model: Path, tmp_path: Path) -> None:
    for folder, name, words in (
        (model, "tiny", "give owner/name"),
        (tmp_path / "missing", "me/tiny", "is not a folder"),
        (tmp_path, "me/tiny", "cannot be read"),
    ):
        with pytest.raises(ModelError, match=words):
            push(folder, name, endpoint=server.url, token=server.token)
    for weights in ("model.safetensors", "pytorch_model.bin"):
        (model / weights).unlink()
    with pytest.raises(ModelError, match="has no weights"):
        push(model, "me/tiny", endpoint=server.url, token=server.token)
    assert not server.requests
