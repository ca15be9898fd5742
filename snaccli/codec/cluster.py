"""Recordings worked on by the processes of a Ray cluster, on this machine or on many.

The work is cut into units that may be done anywhere, and again: each writes outputs whose names are known
beforehand, whole or not at all. A worker is an actor, which loads what it needs once (a model) and then does
one unit after another; when its process dies, Ray starts another and the unit is done again. Ray itself is an
extra, ``snaccli[cluster]``. Encoding is a work of this kind, in units of some tens of files.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

from snaccli.codec.api import encode_file
from snaccli.codec.pool import ModelPool
from snaccli.errors import SnacError, UsageError
from snaccli.io.elsewhere import is_url
from snaccli.io.files import make_folder

__all__ = [
    "AUTO",
    "LOCAL",
    "Done",
    "EncodeUnit",
    "EncodeWork",
    "Failure",
    "Place",
    "UnitResult",
    "UnitWork",
    "encode_units",
    "run_units",
]

AUTO, LOCAL = "auto", "local"
_RETRIES = 3
_AHEAD = 2  # units that wait at each worker, so that it is never idle

Unit = TypeVar("Unit")
Result = TypeVar("Result")
Unit_contra = TypeVar("Unit_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class UnitWork(Protocol[Unit_contra, Result_co]):
    """What a worker does; it is pickled and sent to each of them."""

    def start(self) -> None:
        """Loads what every unit needs, once, in the worker's process.

        Raises:
            SnacError: it cannot be had: the run ends.
        """

    def __call__(self, unit: Unit_contra) -> Result_co:
        """Does one unit. Its result is pickled; errors of single recordings belong into it."""


@dataclass(frozen=True)
class Place:
    """Where the workers run.

    Attributes:
        address: ``auto`` for the cluster that this machine belongs to, ``local`` for a new one on this
            machine alone that ends with the run, or the address of a cluster (``ray://HOST:10001``,
            ``HOST:6379``).
        cpus: processors for each worker.
        gpus: accelerators for each worker; a half lets two workers share one.
        workers: so many; None for as many as the cluster has room for.
    """

    address: str
    cpus: int = 1
    gpus: float = 0.0
    workers: int | None = None


@dataclass(frozen=True)
class Done:
    """What became of one recording of a unit.

    Attributes:
        source: its name.
        seconds: of audio.
        error: why it failed, on one line; None if it did not.
    """

    source: str
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class UnitResult:
    """What a unit of recordings did.

    Attributes:
        output: the file or folder that it wrote to.
        recordings: each of the unit.
    """

    output: str
    recordings: tuple[Done, ...]


@dataclass(frozen=True)
class Failure:
    """A unit that could not be done: its workers died each time.

    Attributes:
        message: why, on one line.
    """

    message: str


class _Worker(Generic[Unit, Result]):
    """What runs in the process of an actor."""

    def __init__(self, work: UnitWork[Unit, Result]) -> None:
        self._work = work
        self._problem: str | None = None
        try:
            work.start()
        except SnacError as error:  # told in words; exceptions of actors' constructors are not
            self._problem = str(error)

    def ready(self) -> str | None:
        """Why the worker cannot work; None if it can."""
        return self._problem

    def do(self, unit: Unit) -> Result:
        """Does one unit."""
        return self._work(unit)


def run_units(
    work: UnitWork[Unit, Result], units: Sequence[Unit], place: Place
) -> Generator[tuple[Unit, Result | Failure], None, None]:
    """Yields each unit with its result as it ends, in no fixed order.

    Closing the generator, or an interrupt in it, ends the workers where they are: units that are done stay
    done.

    Raises:
        UsageError: Ray is not installed, there is no such cluster, or it has no room for a worker.
        SnacError: the workers cannot start their work.
    """
    ray = _ray()
    _connect(ray, place)
    actors: list[Any] = []
    try:
        count = min(_room(ray, place), len(units))
        kind = ray.remote(_Worker).options(
            num_cpus=place.cpus, num_gpus=place.gpus, max_restarts=-1, max_task_retries=_RETRIES
        )
        actors = [kind.remote(work) for _ in range(count)]
        _check_start(ray, actors)
        yield from _done(ray, actors, units)
    finally:
        for actor in actors:
            ray.kill(actor)
        ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as it will be; else it warns
    try:
        import ray
    except ImportError as error:
        raise UsageError("clusters need the package ray: pip install 'snaccli[cluster]'") from error
    return ray


def _connect(ray: Any, place: Place) -> None:
    options = {"log_to_driver": False, "logging_level": "error"}
    try:
        if place.address == LOCAL:
            ray.init(address="local", include_dashboard=False, **options)
        else:
            ray.init(address=place.address, **options)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        line = " ".join(str(error).split())[:200]
        raise UsageError(
            f"there is no cluster at {place.address!r}: 'ray start --head' starts one ({line})"
        ) from error


def _room(ray: Any, place: Place) -> int:
    """Workers that the cluster has room for, at most as many as are wanted."""
    there = ray.cluster_resources()
    room = int(there.get("CPU", 0) // place.cpus)
    if place.gpus:
        room = min(room, int(there.get("GPU", 0) // place.gpus))
    if room < 1:
        raise UsageError(
            f"no worker of {place.cpus} processors and {place.gpus:g} accelerators fits the cluster, which "
            f"has {there.get('CPU', 0):g} and {there.get('GPU', 0):g}: ask for less"
        )
    return room if place.workers is None else min(room, place.workers)


def _check_start(ray: Any, actors: Sequence[Any]) -> None:
    """Waits for the first worker: what is wrong with the model is wrong for all."""
    ready, _ = ray.wait([actor.ready.remote() for actor in actors], num_returns=1)
    problem = _result(ray, ready[0])
    if problem is not None:
        raise SnacError(problem.message if isinstance(problem, Failure) else problem)


def _done(ray: Any, actors: Sequence[Any], units: Sequence[Unit]) -> Generator[tuple[Unit, Any], None, None]:
    waiting = iter(units)
    running: dict[Any, tuple[Unit, Any]] = {}

    def give(actor: Any) -> None:
        for unit in waiting:
            running[actor.do.remote(unit)] = unit, actor
            return

    for _ in range(_AHEAD):
        for actor in actors:
            give(actor)
    while running:
        ended, _ = ray.wait(list(running), num_returns=1, timeout=1.0)  # else Windows takes no interrupt
        for reference in ended:
            unit, actor = running.pop(reference)
            give(actor)
            yield unit, _result(ray, reference)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:  # a defect in the unit's work too: it is told, and not fatal
        lines = [line for line in str(error).splitlines() if line.strip()]
        return Failure(" ".join(lines[-1].split())[:300] if lines else type(error).__name__)


_FILES = 32  # in a unit


@dataclass(frozen=True)
class EncodeUnit:
    """Files to be made.

    Attributes:
        recordings: source and output of each.
    """

    recordings: tuple[tuple[str, str], ...]


def encode_units(files: Sequence[tuple[str, str]]) -> list[EncodeUnit]:
    """Cuts pairs of source and output into units."""
    return [EncodeUnit(tuple(files[low : low + _FILES])) for low in range(0, len(files), _FILES)]


@dataclass
class EncodeWork:
    """Encodes files; see ``snaccli.codec.cluster.UnitWork``.

    Attributes:
        model: see ``encode_file``.
        device: likewise.
        threads: likewise.
        channels: likewise.
        prior: likewise; a file must have the same name for all workers.
        rate_distortion: likewise.
    """

    model: str
    device: str
    threads: int
    channels: Literal["mono", "keep"]
    prior: bool | str = True
    rate_distortion: float = 0.0

    def start(self) -> None:
        """Loads the model and its prior.

        Raises:
            ModelError: it cannot be had.
            PriorError: likewise the prior.
        """
        self._models = ModelPool(self.model, device=self.device, threads=self.threads, prior=self.prior)
        _ = self._models.get().prior

    def __call__(self, unit: EncodeUnit) -> UnitResult:
        """Encodes the files of a unit; one that is there is replaced: the unit may have been begun before."""
        done = []
        for source, output in unit.recordings:
            try:
                if not is_url(output):
                    make_folder(os.path.dirname(output))
                made = encode_file(
                    source,
                    output,
                    model=self._models,
                    channels=self.channels,
                    rate_distortion=self.rate_distortion,
                    overwrite=True,
                )
                done.append(Done(source, made.duration_s))
            except (SnacError, OSError) as error:
                done.append(Done(source, error=str(error)))
        return UnitResult(unit.recordings[0][1], tuple(done))
