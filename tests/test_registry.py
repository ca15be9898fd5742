from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import snac
from snac.errors import ModelNotFoundError
from snac.hub import registry
from snac.hub.registry import DEFAULT_MODEL, MODELS, KnownModel, is_repository, resolve


def test_the_default_model_is_shipped():
    assert MODELS[DEFAULT_MODEL].repository is None
    assert MODELS[DEFAULT_MODEL].folder == Path(snac.__file__).parent / "models" / "mini"


@pytest.mark.parametrize(
    ("name", "hop", "strides", "tokens", "kbits"),
    [
        ("24khz", 512, (4, 2, 1), 82, 0.98),
        ("32khz", 384, (8, 4, 2, 1), 156, 1.9),
        ("44khz", 384, (8, 4, 2, 1), 215, 2.6),
    ],
)
def test_geometry_of_the_published_models(name, hop, strides, tokens, kbits):
    config = MODELS[name].config
    assert config.hop_length == hop
    assert config.vq_strides == strides
    assert config.token_rate == pytest.approx(tokens, abs=0.5)
    assert config.raw_bitrate / 1000 == pytest.approx(kbits, abs=0.05)


def test_published_configurations():
    assert MODELS["24khz"].config.to_dict() == {
        "sampling_rate": 24000,
        "encoder_dim": 48,
        "encoder_rates": [2, 4, 8, 8],
        "latent_dim": 768,
        "decoder_dim": 1024,
        "decoder_rates": [8, 8, 4, 2],
        "attn_window_size": None,
        "codebook_size": 4096,
        "codebook_dim": 8,
        "vq_strides": [4, 2, 1],
        "noise": True,
        "depthwise": True,
    }
    music, other = MODELS["32khz"].config.to_dict(), MODELS["44khz"].config.to_dict()
    assert (music.pop("sampling_rate"), other.pop("sampling_rate")) == (32000, 44100)
    assert music == other
    assert music["attn_window_size"] == 32
    assert music["latent_dim"] == 1024


def test_config_of_the_shipped_model_is_read_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_SHIPPED", tmp_path)
    shipped = KnownModel("tiny", "for this test")
    with pytest.raises(ModelNotFoundError, match=r"'tiny' is missing .* install the package again"):
        _ = shipped.config
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "config.json").write_text(json.dumps({"sampling_rate": 12345}))
    assert shipped.sampling_rate == 12345


@pytest.mark.parametrize(
    ("text", "name", "repository", "revision"),
    [
        ("24khz", "24khz", "hubertsiuzdak/snac_24khz", None),
        (" 24kHz ", "24khz", "hubertsiuzdak/snac_24khz", None),
        ("44khz@v1.0", "44khz", "hubertsiuzdak/snac_44khz", "v1.0"),
        ("hubertsiuzdak/snac_32khz", "32khz", "hubertsiuzdak/snac_32khz", None),
        ("hubertsiuzdak/snac_32khz@refs/pr/1", "32khz", "hubertsiuzdak/snac_32khz", "refs/pr/1"),
        ("someone/their.model-2", "someone/their.model-2", "someone/their.model-2", None),
        ("someone/model@" + "0" * 40, "someone/model", "someone/model", "0" * 40),
    ],
)
def test_names_and_repositories(text, name, repository, revision):
    source = resolve(text)
    assert (source.name, source.repository, source.revision) == (name, repository, revision)
    assert source.folder is None
    assert resolve(source.spelling) == source


def test_the_shipped_model_comes_from_its_folder():
    source = resolve("mini")
    assert source.repository is None
    assert source.folder == MODELS["mini"].folder
    assert source.spelling == "mini"


def test_an_existing_folder_is_a_model(tmp_path, monkeypatch):
    folder = tmp_path / "my-voice@home"
    folder.mkdir()
    for given in (folder, str(folder), f"{folder}/", "my-voice@home", "./my-voice@home"):
        monkeypatch.chdir(tmp_path)
        source = resolve(given)
        assert source.folder is not None
        assert source.folder.samefile(folder)
        assert source.name == "my-voice@home"
        assert source.repository is None
    monkeypatch.chdir(folder)
    assert resolve(".").name == "my-voice@home"


def test_an_existing_folder_goes_before_a_repository_but_not_before_a_short_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("hubertsiuzdak/snac_24khz").mkdir(parents=True)
    Path("24khz").mkdir()
    assert resolve("hubertsiuzdak/snac_24khz").folder is not None
    assert resolve("24khz").folder is None
    assert resolve("./24khz").folder is not None
    assert resolve(Path("24khz")).folder is not None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mimi", "no model 'mimi': did you mean mini?"),
        ("24khs", "did you mean 24khz"),
        ("snac_24khz", "did you mean .*hubertsiuzdak/snac_24khz"),
        ("", "There are mini, 24khz, 32khz, 44khz"),
        ("zzzzzz", "no model 'zzzzzz': There are"),
        ("./nowhere", "no folder './nowhere'"),
        ("/nowhere/at/all", "no folder"),
        ("a/b/c", "no folder 'a/b/c'"),
        ("mini@main", "shipped and has no revisions"),
        ("24khz@", "not the name of a revision"),
        ("24khz@../../etc", "not the name of a revision"),
        ("24khz@a b", "not the name of a revision"),
        ("24khz@-x", "not the name of a revision"),
        ("owner/--name", "no model"),
        ("owner/na\0me", "no model"),
        ("x" * 5000, "no model"),
        ("~nobody-of-that-name/x", "no folder"),
    ],
)
def test_everything_else_is_named(text, message):
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        resolve(text)
    assert "\n" not in str(caught.value)


def test_a_file_is_not_a_folder(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(ModelNotFoundError, match="is not a folder: give the one that holds config"):
        resolve(str(file))
    with pytest.raises(ModelNotFoundError, match="no folder"):
        resolve(tmp_path / "missing")


@pytest.mark.parametrize("text", ["a/b", "a-b/c.d", "A1/b_2"])
def test_repository_names(text):
    assert is_repository(text)


@pytest.mark.parametrize(
    "text", ["a", "a/", "/b", "a/b/c", "a--b/c", "a../c", ".a/b", "a/b-", "a/é", "a/b c", "a/b\n"]
)
def test_what_is_no_repository_name(text):
    assert not is_repository(text)


def test_neither_torch_nor_the_client_of_the_hub_is_imported():
    code = (
        "import sys, snac.hub.registry, snac.hub.locate\n"
        "snac.hub.registry.resolve('24khz@main')\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "assert 'huggingface_hub' not in sys.modules, 'huggingface_hub'\n"
        "assert snac.hub.locate.cached('24khz', cache_dir='nowhere') is None\n"
        "assert 'torch' not in sys.modules, 'torch'\n"
        "assert 'huggingface_hub.file_download' not in sys.modules, 'file_download'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
