"""``snac train``: trains a model, or goes on training one."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snaccli.cli import options
from snaccli.cli.ui.console import Console
from snaccli.cli.ui.progress import CaptionBar
from snaccli.errors import ExitStatus, UsageError, cause, shown
from snaccli.training.launched import main_speaks

if TYPE_CHECKING:
    import numpy as np

    from snaccli.training.loop import Trainer
    from snaccli.training.processes import Processes

EXAMPLES = """
snac train examples/train/speech.toml --set data.train=dataset -o runs/speech
snac train examples/train/speech.toml --set data.train=dataset -o runs/speech --resume
snac train examples/train/decoder.toml --init 24khz --set data.train=dataset --limit 100
accelerate launch -m snaccli train examples/train/speech.toml --set data.train=dataset
"""

_LINE_SECONDS = 10.0  # between lines where there is no bar


Config = Annotated[
    str, typer.Argument(metavar="CONFIG", help="TOML file; docs/training.md explains its keys.")
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o",
        "--output",
        metavar="RUN",
        help="Folder for checkpoints, log and model; runs/NAME for NAME.toml without it.",
    ),
]
Init = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="MODEL",
        autocompletion=options.complete_model,
        help="Start from this model's weights: a name, a folder, or owner/name on the Hub.",
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on where the run in this folder stopped, if there is one.")
]
Limit = Annotated[
    int | None,
    typer.Option(
        "--limit",
        min=0,
        metavar="N",
        help="Stop after N more steps, with checkpoint and model; 0 exports what is there.",
    ),
]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a value of CONFIG; may be given again."),
]


@main_speaks()
def train(
    context: typer.Context,
    config: Config,
    output: Output = None,
    init: Init = None,
    resume: Resume = False,
    limit: Limit = None,
    changes: Changes = None,
    device: options.TrainingDevice = options.DeviceChoice.auto,
    threads: options.Threads = None,
) -> ExitStatus:
    """Train a model, or fine-tune one, on folders made by 'snac prepare'.

    Ctrl-C writes a checkpoint and stops. The model that validated best lands in RUN/model, ready for -m.
    """
    console: Console = context.obj
    from snaccli.training.config import TrainConfig

    settings = [*(changes or ()), *([f"threads={threads}"] if threads else ())]
    try:
        os.stat(config)
    except (OSError, ValueError) as error:
        raise UsageError(f"{shown(config)} cannot be read: {cause(error)}") from error
    wanted = TrainConfig.from_toml(config, settings, init)
    folder = Path(output or os.path.join("runs", Path(config).stem))
    if (folder / "last.pt").exists() and not resume:
        raise UsageError(
            f"{shown(folder)} holds a run already: --resume goes on with it, or choose another -o"
        )
    from snaccli.training.processes import this_process

    # While noise stands in for the codebooks, these have no gradients.
    processes = this_process(device.value, unused_weights=wanted.unquantised_steps > 0)
    if not processes.main:
        console.quiet, console.json = True, False
    try:
        return _run(console, wanted, folder, processes, resume, limit)
    finally:
        processes.close()


def _run(
    console: Console, config: Any, folder: Path, processes: Processes, resume: bool, limit: int | None
) -> ExitStatus:
    from snaccli.training.export import export
    from snaccli.training.launched import stop_on_signals
    from snaccli.training.loop import Trainer
    from snaccli.training.state import JsonLog, TensorBoard

    trainer = Trainer(config, folder, processes)
    if resume and trainer.resume():
        console.note(f"resumed after step {trainer.step} of {trainer.schedule.steps}")
    with CaptionBar(console) as bar, stop_on_signals() as stop:
        if processes.main:
            log = JsonLog(folder)
            log.forget_after(trainer.step)
            trainer.reports = [log, _Terminal(console, bar, trainer)]
            if TensorBoard.installed():
                trainer.reports.append(TensorBoard(folder, trainer.step))
        try:
            trainer.run(limit, stop)
        finally:
            for report in trainer.reports:
                report.close()
    if processes.main:
        model = export(trainer, folder / "model")
        console.emit(_value(trainer, model))
        if not console.quiet:
            _tell(console, trainer, model)
    processes.wait()
    return ExitStatus.OK


class _Terminal:
    """A bar with step, stage, loss and improvement; plain lines from time to time where there is none."""

    def __init__(self, console: Console, bar: CaptionBar, trainer: Trainer) -> None:
        self._console, self._bar, self._trainer = console, bar, trainer
        self._told = 0.0
        self._improvement = ""

    def row(self, row: dict[str, Any]) -> None:
        """Shows a row of the log."""
        if "validation" in row:
            self._improvement = f"{-row['improvement_percent']:+.1f} %"
            self._console.note(_validated(row))
        elif "baseline" in row:
            self._console.note(f"baseline at {row['seconds']:.2f} s: {_losses(row['baseline'])}")
        elif "codebooks_fitted_to" in row:
            vectors = ", ".join(f"{count:,}" for count in row["codebooks_fitted_to"])
            self._console.note(f"step {row['step']}: codebooks fitted to {vectors} vectors")
        elif "perplexity" in row:
            perplexity = " ".join(f"{value:.0f}" for value in row["perplexity"])
            self._console.detail(f"step {row['step']}: codewords in use, a level: {perplexity}")
        else:
            self._step(row)

    def _step(self, row: dict[str, Any]) -> None:
        steps = self._trainer.schedule.steps
        line = f"step {row['step']}/{steps} loss {row['loss']:.3f} {self._improvement}".rstrip()
        self._bar.advance(row["step"] / steps, line)
        due = time.monotonic() - self._told >= _LINE_SECONDS
        if (not self._console.interactive and due) or self._console.verbose:
            self._told = time.monotonic()
            pace = f"{row['seconds_a_step']:.2f} s a step"
            self._console.note(f"step {row['step']}/{steps}, stage {row['stage']}: {_losses(row)}; {pace}")

    def audio(self, step: int, name: str, samples: np.ndarray, rate: int) -> None:
        """Nothing: a terminal has no sound."""

    def close(self) -> None:
        """Nothing is left open."""


def _validated(row: dict[str, Any]) -> str:
    change = row["improvement_percent"]
    beside = f"{abs(change):.1f} % {'below' if change >= 0 else 'above'} the baseline"
    return f"step {row['step']}: validation {_losses(row['validation'])}; {beside}"


def _losses(values: dict[str, Any]) -> str:
    from snaccli.training.config import COMPARISONS

    names = (*COMPARISONS, "adversarial", "feature", "discriminator")
    parts = [f"{name} {values[name]:.4f}" for name in names if name in values]
    return f"loss {values['loss']:.4f} ({', '.join(parts)})"


def _value(trainer: Trainer, model: Path) -> dict[str, Any]:
    return {
        "model": str(model),
        "step": trainer.step,
        "steps": trainer.schedule.steps,
        "best_step": trainer.progress.best_step,
        "validation": trainer.progress.table(),
    }


def _tell(console: Console, trainer: Trainer, model: Path) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = trainer.progress.table()
    if rows:
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("segment")
        table.add_column("validation")
        names = ("loss", *trainer.config.weights.reconstruction())
        for name in (*names, "change"):
            table.add_column(name.replace("_", " "), justify="right")
        for row in rows:
            for name in ("baseline", "last", "best"):
                figures = [f"{row[name][key]:.4f}" for key in names]
                change = 100 * (row[name]["loss"] / row["baseline"]["loss"] - 1)
                told = f"{change:+.1f} %" if name != "baseline" else ""
                table.add_row(f"{row['seconds']:.2f} s" if name == "baseline" else "", name, *figures, told)
        console.table(table)
    console.result(f"step {trainer.step} of {trainer.schedule.steps}; model in {shown(model)}")
