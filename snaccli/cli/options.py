"""The options that several commands share, so that each is spelled and explained in one way."""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated, Any

import typer

from snac.hub.registry import DEFAULT_MODEL, MODELS

__all__ = [
    "DEFAULT_MODEL",
    "SNAC_FILES",
    "ChannelChoice",
    "CodingDevice",
    "Debug",
    "Device",
    "DeviceChoice",
    "Force",
    "Jobs",
    "Json",
    "LayoutChoice",
    "NoPrior",
    "Offsets",
    "Output",
    "Prior",
    "Quiet",
    "RateChoice",
    "SkipExisting",
    "StartId",
    "Threads",
    "TokensModel",
    "Verbose",
    "complete_model",
    "model",
    "seconds",
]


class DeviceChoice(str, Enum):
    """Where a model is trained."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class CodingDevice(str, Enum):
    """Where a model codes, and in which precision."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"
    cpu_half = "cpu-half"
    cuda_half = "cuda-half"
    mps_half = "mps-half"


class ChannelChoice(str, Enum):
    """What becomes of a recording with several channels."""

    mono = "mono"
    keep = "keep"


class LayoutChoice(str, Enum):
    """How the tokens of a recording are laid out."""

    nested = "nested"
    interleaved = "interleaved"


class RateChoice(str, Enum):
    """The sample rate of decoded audio."""

    original = "original"
    model = "model"


def complete_model(incomplete: str) -> list[tuple[str, str]]:
    """Offers the known models to the shell."""
    return [(model.name, model.description) for model in MODELS.values() if model.name.startswith(incomplete)]


def model(explanation: str) -> Any:
    """Returns the option ``-m``, which does not mean quite the same to every command."""
    return typer.Option("-m", "--model", metavar="MODEL", autocompletion=complete_model, help=explanation)


_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?|\.\d+)", re.ASCII)


def seconds(text: str) -> float:
    """Returns the seconds that ``90``, ``1:30``, ``1:30.5`` or ``1:02:03`` stand for.

    Raises:
        typer.BadParameter: it is none of these.
    """
    match = _CLOCK.fullmatch(text.strip())
    hours, minutes, rest = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
    if match is None or (match[1] and minutes >= 60) or (match[2] and rest >= 60):
        raise typer.BadParameter(
            f"{text!r} is not a time; give seconds, or minutes as 1:30, or hours as 1:02:03"
        )
    return hours * 3600 + minutes * 60 + rest


SNAC_FILES = (
    ".snac files; folders, of which all .snac files are taken but those whose names begin with a dot; "
    "or - for standard input."
)
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="PATH",
        help="Write to this file, to this folder when there are several inputs, or to standard output (-). "
        "Without it each output stands beside its input.",
    ),
]
Prior = Annotated[
    str | None,
    typer.Option(
        "--prior",
        metavar="FILE",
        help="The learned prior of the model's tokens; by default prior.safetensors beside its weights.",
    ),
]
NoPrior = Annotated[
    bool, typer.Option("--no-prior", help="Write files that can be read with the model alone.")
]
Force = Annotated[bool, typer.Option("-f", "--force", help="Overwrite outputs that exist.")]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Leave out files whose output exists: resumes a batch.")
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--jobs",
        min=1,
        metavar="N",
        show_default=False,
        help="Work on N files at once; they share one model. By default one for each processor, at most 8.",
    ),
]
Device = Annotated[
    CodingDevice,
    typer.Option(
        "--device",
        help="Where the model runs; auto takes the fastest there is. With -half in 16 bits: faster on a GPU, "
        "codes and sound a little different.",
    ),
]
TrainingDevice = Annotated[
    DeviceChoice, typer.Option("--device", help="Where the model runs; auto takes the fastest there is.")
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="Threads for each file; by default the processors, shared out among files at once, at most 8.",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print the result as JSON on standard output, all else on standard error."),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Tell more: each file, the model, what was left out.")
]
Debug = Annotated[
    bool, typer.Option("--debug", help="Print the traceback of an error, for reports of defects.")
]
Offsets = Annotated[
    bool,
    typer.Option("--offsets", help="Interleaved: each position of a frame has a range of ids of its own."),
]
StartId = Annotated[
    int, typer.Option("--start-id", min=0, metavar="N", help="Interleaved: the smallest id; added to all.")
]
TokensModel = Annotated[
    str | None,
    model("A model's name or folder. By default the one a file names, and mini for audio."),
]
