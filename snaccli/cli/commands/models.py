"""``snac models``: what models there are, which are on this machine, and fetching one ahead of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from snaccli.cli import options
from snaccli.cli.ui import text
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import waiting
from snaccli.errors import ExitStatus, ModelError, shown

if TYPE_CHECKING:
    from snac.config import ModelConfig
    from snac.hub.locate import ModelFiles

LIST_EXAMPLES = """
snac models list
snac models list --json
"""

PULL_EXAMPLES = """
snac models pull 24khz
snac models pull owner/name@v2
"""

SHOW_EXAMPLES = """
snac models show mini
snac models show ./my-model --json
"""

PUSH_EXAMPLES = """
snac models push runs/speech/model me/my-speech-codec
snac models push runs/speech/model me/my-speech-codec --private
"""

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        autocompletion=options.complete_model,
        help="A model's name, its folder, or owner/name (or owner/name@revision) on the Hugging Face Hub.",
    ),
]


def list_models(
    context: typer.Context,
) -> ExitStatus:
    """List the models with a name, and which are on this machine."""
    from snac.hub.registry import MODELS

    console: Console = context.obj
    values = [_entry(name) for name in MODELS]
    console.emit(values)
    for value in values if not console.quiet else []:
        where = "here" if value["on_disk"] else "to pull" if value["repository"] else "missing"
        rate = f"{value['rate'] / 1000:g} kHz" if value["rate"] else ""
        prior = "; with a learned prior" if value["prior"] else ""
        console.result(f"{value['name']:<7} {where:<8} {rate:>8}  {value['description']}{prior}")
    return ExitStatus.OK


def pull(
    context: typer.Context,
    name: Name,
) -> ExitStatus:
    """Fetch a model from the Hub, to work without network later."""
    from snac.hub import locate as hub

    console: Console = context.obj
    with waiting(console, f"fetching {name}"):
        files = hub.pull(name)
    folder = files.cache_folder or files.config.parent
    console.emit(
        {
            "name": files.name,
            "origin": files.origin,
            "folder": str(folder),
            "bytes": files.size_on_disk,
            "prior": _prior(files),
        }
    )
    if not console.quiet:
        console.result(f"{shown(files.name)}: {shown(files.origin)}, {text.size(files.size_on_disk)}")
        console.result(f"  in {shown(folder)}{', with a learned prior' if files.prior else ''}")
    return ExitStatus.OK


def push(
    context: typer.Context,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="Folder of the model, as 'snac train' exports it.")
    ],
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hub; made if it does not exist.")
    ],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> ExitStatus:
    """Publish a model of your own on the Hub.

    Needs a token with write access: 'hf auth login', or HF_TOKEN.
    """
    from snac.hub.network import push as upload

    console: Console = context.obj
    with waiting(console, f"uploading to {repository}"):
        url = upload(folder, repository, private=private)
    console.emit({"folder": folder, "repository": repository, "url": url})
    if not console.quiet:
        console.result(f"{shown(folder)} -> {shown(url)}")
    return ExitStatus.OK


def show(
    context: typer.Context,
    name: Name,
) -> ExitStatus:
    """Tell a model's rate, strides, bit rate, and where it is."""
    console: Console = context.obj
    value = _details(name)
    console.emit(value)
    if not console.quiet:
        _show(console, value)
    return ExitStatus.OK


def _entry(name: str) -> dict[str, Any]:
    from snac.hub import locate as hub
    from snac.hub.registry import MODELS

    model = MODELS[name]
    files = hub.cached(name)
    try:
        rate: int | None = model.sampling_rate
    except ModelError:  # a shipped model that this installation lacks
        rate = None
    return {
        "name": name,
        "description": model.description,
        "repository": model.repository,
        "rate": rate,
        "on_disk": files is not None,
        "bytes": files.size_on_disk if files else None,
        "prior": _prior(files),
    }


def _prior(files: ModelFiles | None) -> dict[str, Any] | None:
    """What the learned prior beside a model's weights says of itself; None where there is none."""
    from snac.arrays import metadata_of

    if files is None or files.prior is None:
        return None
    told = metadata_of(files.prior)
    return {
        "path": str(files.prior),
        "bytes": files.prior.stat().st_size,
        "fingerprint": told.get("fingerprint"),
        "model_fingerprint": told.get("model_fingerprint"),
    }


def _details(name: str) -> dict[str, Any]:
    from snac.config import ModelConfig
    from snac.hub import locate as hub
    from snac.hub.registry import resolve

    source = resolve(name)
    # A folder or a shipped model must be whole; one of the Hub may be known without being here.
    files = hub.locate(name) if source.folder is not None else hub.cached(name)
    if files is not None:
        config = ModelConfig.from_file(files.config)
    elif source.known is not None:
        config = source.known.config
    else:
        raise ModelError(
            f"{source.name} is not on this machine; fetch it with 'snac models pull {source.spelling}'"
        )
    return {
        "name": source.name,
        "description": source.known.description if source.known else None,
        "repository": source.repository,
        **_geometry(config),
        "on_disk": files is not None,
        **_places(files),
        "prior": _prior(files),
    }


def _geometry(config: ModelConfig) -> dict[str, Any]:
    return {
        "rate": config.sampling_rate,
        "hop_length": config.hop_length,
        "strides": list(config.vq_strides),
        "codebook_size": config.codebook_size,
        "tokens_per_second": config.token_rate,
        "raw_bitrate_bps": config.raw_bitrate,
        "attention_window": config.attention_window,
    }


def _places(files: ModelFiles | None) -> dict[str, Any]:
    from snac.hub import locate as hub

    if files is None:
        return {"origin": None, "weights": None, "bytes": None, "fingerprint": None}
    return {
        "origin": files.origin,
        "weights": str(files.weights),
        "bytes": files.size_on_disk,
        "fingerprint": hub.recorded_fingerprint(files),
    }


def _show(console: Console, value: dict[str, Any]) -> None:
    rows = [
        ("about", value["description"]),
        ("rate", f"{value['rate']} Hz, {value['hop_length']} samples a frame"),
        ("streams", f"{len(value['strides'])}, strides {' '.join(map(str, value['strides']))}"),
        ("codebook", f"{value['codebook_size']} codewords a stream"),
        (
            "bit rate",
            f"{value['tokens_per_second']:.0f} tokens/s, {text.bitrate(value['raw_bitrate_bps'])} uncoded",
        ),
        ("from", value["origin"] or value["repository"]),
        ("weights", value["weights"] or f"not here; fetch them with 'snac models pull {value['name']}'"),
        ("size", text.size(value["bytes"]) if value["bytes"] else None),
        ("print", value["fingerprint"]),
        ("prior", f"{value['prior']['path']}, {value['prior']['fingerprint']}" if value["prior"] else None),
    ]
    console.result(shown(value["name"]))
    for title, told in rows:
        if told is not None:
            console.result(f"  {title + ':':<10}{shown(told)}")
