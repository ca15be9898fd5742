"""From the inputs and ``-o`` of a command line to one job a file, checked before anything runs."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from snaccli.errors import STDIO, OutputError, SnacError, UsageError, shown
from snaccli.io import elsewhere
from snaccli.io.files import walk
from snaccli.workers import Job

__all__ = [
    "SHELL_PIPES",
    "OutputClashError",
    "Plan",
    "Sources",
    "check_format",
    "expand",
    "find_sources",
    "is_snac",
    "make_plan",
]

SHELL_PIPES = ("/dev/fd", "/proc/self/fd")
"""The folders of what a shell makes of ``<(...)``."""

_MOST_CLASHES = 10  # that are named


class OutputClashError(UsageError):
    """Two inputs would be written to the same output, or an input would be overwritten."""


class NothingFoundError(SnacError):
    """A folder holds no file of the kind that the command works on."""


@dataclass
class Sources:
    """The files that the inputs of a command stand for.

    Attributes:
        files: each with its path below the folder that was named, in a fixed order: inputs as given,
            folders sorted by name.
        batch: whether the user asked for several files (several inputs, or a folder).
        problems: inputs that led to no file, each with the reason.
        remarks: what was left out on purpose, worth a line.
    """

    files: list[tuple[str, str]] = field(default_factory=list)
    batch: bool = False
    problems: list[tuple[str, Exception]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def skipped(self, path: str, error: OSError | None) -> None:
        """Notes a folder that was left out."""
        if error is None:
            self.remarks.append(f"{shown(path)}: linked folder not followed")
        else:
            self.problems.append((path, error))


@dataclass
class Plan:
    """What to run: the files to make, and the inputs that led to none (see :class:`Sources`)."""

    jobs: list[Job]
    batch: bool
    problems: list[tuple[str, Exception]]
    remarks: list[str]


def expand(inputs: Iterable[str], *, globs: bool = os.name == "nt") -> list[str]:
    """Returns `inputs` with patterns expanded where the shell leaves that to the program, as on Windows."""
    expanded: list[str] = []
    for name in inputs:
        matches = []
        if globs and glob.has_magic(name) and not os.path.lexists(name):
            matches = sorted(glob.glob(name, recursive=True))
        expanded += matches or [name]
    return expanded


def find_sources(inputs: Iterable[str], *, wanted: Callable[[str], bool], kind: str) -> Sources:
    """Returns the files that `inputs` stand for.

    Args:
        inputs: files, folders (walked recursively; what begins with a dot is left out there, and links to
            folders are not followed), URLs of either, or ``-``.
        wanted: whether a file in a folder is one to take, by its name; files named by the user are taken
            as they are.
        kind: what `wanted` looks for, for messages.
    """
    names = [elsewhere.localised(name) for name in expand(inputs)]
    sources = Sources(batch=len(names) > 1)
    if STDIO in names and sources.batch:
        raise UsageError("standard input cannot be one of several inputs; give it a run of its own")
    for name in names:
        is_url = elsewhere.is_url(name)
        try:
            if name == STDIO:
                sources.files.append((name, name))
            elif os.path.isdir(name) or (is_url and (name.endswith("/") or elsewhere.is_folder(name))):
                sources.batch = True
                found = (
                    elsewhere.walk(name, wanted) if is_url else walk(name, wanted, skipped=sources.skipped)
                )
                before = len(sources.problems)
                below = list(found)
                if not below and len(sources.problems) == before:  # a folder that cannot be read is told
                    raise NothingFoundError(
                        f"no {kind} in this folder or below it; name another folder or the files"
                    )
                sources.files += below
            elif is_url:
                sources.files.append((name, name.rpartition("/")[2]))
            else:
                os.stat(name)  # raises the error that says why it cannot be read
                sources.files.append((name, os.path.basename(name)))
        except (SnacError, OSError) as error:
            sources.problems.append((name, error))
    return sources


def make_plan(sources: Sources, output: str | None, *, extension: str, replaces: str | None = None) -> Plan:
    """Returns one job for each file, its output found and checked.

    Args:
        sources: what to work on.
        output: a file, or a folder where there are several files; ``-``; None to write beside each input,
            and to standard output from standard input.
        extension: of the names of the outputs, with its dot.
        replaces: the only file extension that `extension` takes the place of; None for any.

    Raises:
        UsageError: the inputs and the output do not fit together.
        OutputClashError: two jobs have one output, or an output is an input.
    """
    if output is not None:
        output = elsewhere.localised(output)
    elif any(source == STDIO for source, _ in sources.files):
        output = STDIO
    is_folder = False
    if output == "":
        raise UsageError("the output has an empty name; give -o a file or a folder")
    if output is not None and sources.batch:
        if output == STDIO:
            raise UsageError("several files cannot go to standard output; give -o a folder")
        if os.path.lexists(output) and not os.path.isdir(output):
            raise UsageError(f"{shown(output)} is a file; for several inputs -o names a folder")
        if sources.files and _is_new(output) and _is_name_of_file(output, extension):
            raise UsageError(
                f"{shown(output)} is the name of a file; for several inputs -o names a folder: "
                "make it first if it is to be called so"
            )
        is_folder = True
    elif output is not None:
        is_folder = os.path.isdir(output) or output.endswith(("/", os.sep))
        is_folder = is_folder or (elsewhere.is_url(output) and elsewhere.is_folder(output))

    inputs = {elsewhere.identity(source): source for source, _ in sources.files if source != STDIO}
    jobs: dict[str, Job] = {}
    clashes: list[str] = []
    for source, below in sources.files:
        job = Job(source, _target(source, below, output, is_folder, extension, replaces))
        place = STDIO if job.output == STDIO else elsewhere.identity(job.output)
        if place in inputs:
            raise OutputClashError(_input_clash(job, inputs[place], extension))
        other = jobs.setdefault(place, job).source
        if other != source and elsewhere.identity(other) != elsewhere.identity(source):
            clashes.append(f"{shown(other)} and {shown(source)} would both become {shown(job.output)}")
    if clashes:
        raise OutputClashError(_told(clashes))
    return Plan(list(jobs.values()), sources.batch, sources.problems, sources.remarks)


def is_snac(name: str) -> bool:
    """Whether the name is that of a ``.snac`` file, for :func:`find_sources`."""
    return name.lower().endswith(".snac")


def _target(
    source: str, below: str, output: str | None, is_folder: bool, extension: str, replaces: str | None
) -> str:
    """Returns the output of one file: `output`, or its own name with another extension."""
    if output is not None and not is_folder:
        return output
    if output is None and os.path.dirname(source) in SHELL_PIPES:
        raise UsageError(f"{shown(source)} is a pipe, beside which nothing can stand; give -o a file")
    name = source if output is None else "stdin" if source == STDIO else below
    stem, old = os.path.splitext(name)
    name = (stem if replaces is None or old.lower() == replaces else name) + extension
    if output is None:
        return name
    return elsewhere.join(output, name) if elsewhere.is_url(output) else os.path.join(output, name)


def _is_new(output: str) -> bool:
    """Whether a folder of this name would be made, and nothing but the name says that it is one."""
    if output.endswith(("/", os.sep)):
        return False
    return not (elsewhere.is_folder(output) if elsewhere.is_url(output) else os.path.isdir(output))


def _is_name_of_file(output: str, extension: str) -> bool:
    """Whether a name is that of a file as this program reads or writes them."""
    ending = os.path.splitext(output)[1].lower()
    if not ending or ending in (extension, ".snac"):
        return ending != ""
    from snaccli.audio import is_audio_name

    return is_audio_name(output)


def check_format(output: str, audio_format: str | None) -> None:
    """Refuses a format that is another than the name of the output says.

    Args:
        output: path, or ``-``.
        audio_format: as ``--format`` takes it; None where the name alone counts.

    Raises:
        UsageError: both are known, and differ.
    """
    from snaccli.audio import is_audio_name, output_format

    ending = os.path.splitext(output)[1].lower()
    wanted = "" if audio_format is None else audio_format.lower().removeprefix(".")
    if wanted == ending[1:] or not wanted or not (is_snac(output) or is_audio_name(output)):
        return
    if wanted != "snac" and not is_snac(output):
        kind = output_format("", audio_format=wanted).container
        with suppress(OutputError):  # what no audio can be written as
            # RF64, what a WAV file of over 4 GiB is, has the same extensions.
            if kind in ("WAV", "RF64") and ending in (".wav", ".wave"):
                return
            if kind == output_format(output).container:
                return
    raise UsageError(f"--format {shown(wanted)} contradicts the name {shown(output)}: change one of them")


def _told(clashes: list[str]) -> str:
    """All pairs that clash, as far as a line has room for them."""
    left = len(clashes) - _MOST_CLASHES
    told = "; ".join(clashes[:_MOST_CLASHES]) + (f"; and {left} more" if left > 0 else "")
    return f"{told}; nothing was written; rename one, or run the command once for each with its own -o"


def _input_clash(job: Job, source: str, extension: str) -> str:
    if source == job.source and extension == ".snac" and is_snac(source):
        return f"{shown(source)} is a .snac file already; decode it with 'snac decode'"
    if source == job.source:
        return f"{shown(source)}: input and output are the same file; give another output with -o"
    return (
        f"{shown(job.source)} would be written over {shown(source)}, which is an input too; "
        "give another output with -o"
    )
