"""The options that several commands share, each spelled in one way, and how their values are converted.

Typer converts values with pydantic from its release 0.29 on. Importing pydantic and building its validators
takes longer than everything else that ``snac info`` does. The options of this program have few types, so
their values are converted here (:class:`PlainValues`). A parameter of another type, and any parameter under
another release of Typer, is left as Typer made it: slower then, but right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, get_args, get_origin

import typer

from snac.hub.registry import DEFAULT_MODEL, MODELS

__all__ = [
    "DEFAULT_MODEL",
    "SNAC_FILES",
    "ChannelChoice",
    "Cluster",
    "CodingDevice",
    "CpusPerWorker",
    "Debug",
    "Device",
    "DeviceChoice",
    "Force",
    "GpusPerWorker",
    "Jobs",
    "Json",
    "LayoutChoice",
    "NoPrior",
    "Offsets",
    "Output",
    "PlainValues",
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


class PlainValues:
    """Stands before a class of Typer's commands: their values are converted by this module."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Returns the options and arguments."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in parameters:
            descriptor = getattr(parameter, "type_descriptor", None)
            if descriptor is not None and getattr(parameter, "_runtime_param", descriptor) is None:
                kind, told = descriptor.annotation, descriptor.parameter_info
                kind = get_args(kind)[0] if get_origin(kind) is list else kind
                known = kind in (str, bool, int, float) or (isinstance(kind, type) and issubclass(kind, Enum))
                if known or told.parser is not None:
                    parameter._runtime_param = _PlainValue(told.parser or kind, told.min, told.max)
        return parameters


@dataclass(frozen=True)
class _PlainValue:
    """What Typer asks to convert the value of one parameter, in place of its own ``RuntimeParam``.

    Attributes:
        kind: what makes a value of a word: a type, the class of the choices there are, or a function.
        least, most: of a number; None for any.
    """

    kind: Any
    least: float | None
    most: float | None

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Returns the converted value; a tuple where the parameter takes several.

        Raises:
            typer.BadParameter: the value is not of the parameter's type.
        """
        several = param.multiple or param.nargs == -1
        if value is None:
            return () if several else None
        values = []
        for word in value if several else [value]:
            try:
                found = self.kind(word)
            except ValueError as error:
                raise typer.BadParameter(f"{word!r} is not {self._wanted()}", ctx=ctx, param=param) from error
            too_low = self.least is not None and not found >= self.least  # so that NaN is refused, too
            if too_low or (self.most is not None and not found <= self.most):
                raise typer.BadParameter(f"{word} is not {self._range()}", ctx=ctx, param=param)
            values.append(found)
        return tuple(values) if several else values[0]

    def _wanted(self) -> str:
        if isinstance(self.kind, type) and issubclass(self.kind, Enum):
            return f"one of {', '.join(str(choice.value) for choice in self.kind)}"
        return "a whole number" if self.kind is int else "a number"

    def _range(self) -> str:
        if self.least is None:
            return f"at most {self.most}"
        return (
            f"{self.least} or more" if self.most is None else f"in the range of {self.least} to {self.most}"
        )


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
        max=256,
        metavar="N",
        help="Threads for each file; by default the processors, shared out among files at once, at most 8.",
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="WHERE",
        help="Share the work out among the workers of a Ray cluster: auto for the one that this machine "
        "belongs to, local for one on this machine alone, or an address. docs/corpora.md has the whole way.",
    ),
]
CpusPerWorker = Annotated[
    int,
    typer.Option("--cpus-per-worker", min=1, metavar="N", help="On a cluster: processors for each worker."),
]
GpusPerWorker = Annotated[
    float,
    typer.Option(
        "--gpus-per-worker",
        min=0.0,
        metavar="N",
        help="On a cluster: accelerators for each worker; 0.5 lets two workers share one.",
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
