"""The models that are known by name, and what a user's string stands for. Knows no torch and no network."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from snac.config import ModelConfig, WaveformConfig
from snac.errors import ModelNotFoundError

DEFAULT_MODEL = "mini"

CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("model.safetensors", "pytorch_model.bin")  # in the order in which they are looked for
PRIOR_FILE = "prior.safetensors"  # of the entropy coder; a model may lack it

_SHIPPED = Path(__file__).parent.parent / "models"
_REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
_REVISION = re.compile(r"[\w./+-]{1,200}", re.ASCII)


@dataclass(frozen=True)
class KnownFile:
    """Size in bytes and SHA-256 (64 hex digits) of a file as it was published."""

    size: int
    sha256: str


@dataclass(frozen=True)
class KnownModel:
    """A model with a short name: shipped inside the package, or published on the Hugging Face Hub.

    ``files`` holds the published weights whose content is known; the others are taken as they come.
    """

    name: str
    description: str
    repository: str | None = None
    published_config: ModelConfig | None = None
    files: Mapping[str, KnownFile] = field(default_factory=dict)

    @property
    def folder(self) -> Path | None:
        """Where a shipped model lies; None for a model of the Hub."""
        return _SHIPPED / self.name if self.repository is None else None

    @cached_property
    def config(self) -> ModelConfig:
        """The configuration, without network; that of a shipped model is read from its folder.

        Raises:
            ModelNotFoundError: the shipped model is missing from this installation.
            ModelError: its config.json is damaged.
        """
        if self.published_config is not None:
            return self.published_config
        path = _SHIPPED / self.name / CONFIG_FILE
        if not path.is_file():
            raise ModelNotFoundError(
                f"the shipped model {self.name!r} is missing from {_SHIPPED}: install the package again"
            )
        return ModelConfig.from_file(path)

    @property
    def sampling_rate(self) -> int:
        """Hz of the audio the model codes."""
        return self.config.sampling_rate


def _music(sampling_rate: int) -> ModelConfig:
    return WaveformConfig(
        sampling_rate=sampling_rate,
        encoder_dim=64,
        encoder_rates=(2, 3, 8, 8),
        decoder_dim=1536,
        decoder_rates=(8, 8, 3, 2),
        attn_window_size=32,
    )


# Configurations and repositories as published (hubertsiuzdak/snac, issue 17).
_TABLE = (
    KnownModel("mini", "small, for speech and music; shipped with the program"),
    KnownModel(
        "24khz",
        "speech, 19.8 M parameters",
        repository="hubertsiuzdak/snac_24khz",
        published_config=WaveformConfig(
            sampling_rate=24000,
            encoder_dim=48,
            encoder_rates=(2, 4, 8, 8),
            decoder_dim=1024,
            decoder_rates=(8, 8, 4, 2),
            attn_window_size=None,
            vq_strides=(4, 2, 1),
        ),
        files={
            "pytorch_model.bin": KnownFile(
                79488254, "4b8164cc6606bfa627f1a784734c1e539891518f1191ed9194fe1e3b9b4bff40"
            )
        },
    ),
    KnownModel(
        "32khz",
        "music and sounds, 54.5 M parameters",
        repository="hubertsiuzdak/snac_32khz",
        published_config=_music(32000),
    ),
    KnownModel(
        "44khz",
        "music and sounds, 54.5 M parameters",
        repository="hubertsiuzdak/snac_44khz",
        published_config=_music(44100),
    ),
)
MODELS: Mapping[str, KnownModel] = {model.name: model for model in _TABLE}
_BY_REPOSITORY = {model.repository.lower(): model for model in _TABLE if model.repository}


@dataclass(frozen=True)
class ModelSource:
    """Where a model is to come from: exactly one of ``folder`` and ``repository`` is set.

    Attributes:
        name: the model id that files carry: a short name, ``owner/name``, or a folder's base name.
        folder: holds config.json and weights.
        repository: ``owner/name`` on the Hub.
        revision: branch, tag or commit asked for; None for the repository's default.
        known: the entry in ``MODELS``, if there is one.
    """

    name: str
    folder: Path | None = None
    repository: str | None = None
    revision: str | None = None
    known: KnownModel | None = None

    @property
    def place(self) -> str:
        """Where the files of a model that is not on the Hub are from, in words."""
        return "shipped" if self.known else f"folder {self.folder}"

    @property
    def spelling(self) -> str:
        """What to give as a model to get this one."""
        if self.folder is not None and self.known is None:
            return str(self.folder)
        return f"{self.name}@{self.revision}" if self.revision else self.name


def resolve(source: str | os.PathLike[str], revision: str | None = None) -> ModelSource:
    """Says what a user's model string stands for, touching neither network nor weights.

    In this order: a short name (``mini``, ``24khz``, in any case); an existing folder; ``owner/name`` on the
    Hub. The short names of the Hub and ``owner/name`` may be followed by ``@revision``. A published
    repository has the short name whichever way it is asked for. A path object is always a folder.

    Args:
        source: the model string, or the path of a folder.
        revision: branch, tag or commit of a model of the Hub; others have none and take no notice.

    Raises:
        ModelNotFoundError: it is none of these (the nearest known names are given), or two revisions differ.
    """
    if not isinstance(source, str):
        return _folder(Path(source))
    text = source.strip()
    base, _, named = text.partition("@")
    known = MODELS.get(base.lower())
    if known is None and (path := _existing(text)) is not None:
        return _folder(path)
    known = known or _BY_REPOSITORY.get(base.lower())
    if "@" in text and not _is_revision(named):
        raise ModelNotFoundError(f"model {text!r}: {named!r} is not the name of a revision")
    if known is not None and known.repository is None:
        if named:
            raise ModelNotFoundError(f"model {text!r}: {known.name!r} is shipped and has no revisions")
        return ModelSource(known.name, known.folder, known=known)
    if known is not None or is_repository(base):
        if named and revision not in (None, named):
            raise ModelNotFoundError(f"model {text!r}: revision {revision!r} was asked for, too: give one")
        name, repository = (known.name, known.repository) if known else (base, base)
        return ModelSource(name, None, repository, named or revision or None, known)
    raise ModelNotFoundError(_unknown(text))


def is_repository(text: str) -> bool:
    """Whether ``text`` has the form of a Hub repository, ``owner/name``."""
    if not _REPOSITORY.fullmatch(text) or "--" in text or ".." in text:
        return False
    return all(part[0] not in ".-" and part[-1] not in ".-" for part in text.split("/"))


def _existing(text: str) -> Path | None:
    try:
        path = Path(text).expanduser()
        return path if text and path.exists() else None
    except (OSError, RuntimeError, ValueError):  # no such user, too long a name, a null character
        return None


def _is_revision(text: str) -> bool:
    return bool(_REVISION.fullmatch(text)) and ".." not in text and text[0] not in "/-" and text[-1] != "/"


def _folder(path: Path) -> ModelSource:
    if not path.exists():
        raise ModelNotFoundError(f"no folder {str(path)!r}: give one that holds {CONFIG_FILE} and weights")
    if not path.is_dir():
        raise ModelNotFoundError(f"{str(path)!r} is not a folder: give the one that holds {CONFIG_FILE}")
    return ModelSource(path.resolve().name or "model", path)


def _unknown(text: str) -> str:
    if text.startswith((".", "/", "~")) or "\\" in text or text.count("/") > 1:
        return f"no folder {text!r}: give one that holds {CONFIG_FILE} and weights"
    names = [*MODELS, *(model.repository for model in _TABLE if model.repository)]
    near = difflib.get_close_matches(text.lower(), names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"no model {text!r}: {hint}There are {', '.join(MODELS)}, any folder with {CONFIG_FILE} and "
        "weights, and any owner/name on the Hugging Face Hub"
    )
