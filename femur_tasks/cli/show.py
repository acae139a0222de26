"""Showing: tables, JSON, progress bars, and a run as it goes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from femur_tasks.errors import FemurError

if TYPE_CHECKING:
    from rich.progress import Task, TaskID

    from femur_tasks.registry.database import Registry

out, err = Console(), Console(stderr=True)
_FITS = 8  # more of them, and only those that run are shown
WIDE = 105  # columns of a terminal on which a table can also say when
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], if_none: str = "") -> None:
    """Print rows, or the sentence `if_none` on stderr where there are none."""
    # lean, and names whole: nine columns have to go into a terminal
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for position, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=position == 0)
    for row in rows:
        # what was found in files may look like markup
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    if if_none and not table.rows:
        err.print(if_none, highlight=False)
        return
    out.print(table)


def print_json(value: Any) -> None:
    """Print JSON; what JSON does not know becomes text."""
    out.print_json(json.dumps(value, default=str))


def text(value: Any) -> str:
    """A cell: nothing for None, four decimals for a fraction."""
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def when(value: str | None) -> str:
    """A time in ISO format to the minute, nothing for None."""
    return str(value)[:16].replace("T", " ") if value else ""


def masked(value: str) -> str:
    """The text without the passwords of URLs in it, neither before the host nor among the parameters."""
    # greedy: a password may hold an @ of its own
    value = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", value)
    return re.sub(r"(?i)([?&][^=&\s]*(?:password|secret|token|key)[^=&\s]*=)[^&\s'\"]*", r"\1***", value)


def show_registry(rows: Sequence[dict[str, Any]], if_none: str) -> None:
    """Print rows of the view `model_registry`, or the sentence `if_none`."""
    columns = ["version", "family", "status", "val", "test", "worst", "dataset", "verdict", "created"]
    shown = [
        (
            f"{row['model']}:{row['version']}", row["family"], row["status"].replace("former champion", "former"),
            text(row["val_dice"]), text(row["test_dice"]), text(row["test_worst_dice"]),
            f"{row['dataset']}@{row['dataset_digest'][:6]}",
            " ".join(filter(None, (row["verdict"], row["refused_for"]))), when(row["created_at"]),
        )
        for row in rows
    ]  # fmt: skip
    shows = len(columns) if out.width >= WIDE else len(columns) - 1
    title = "Model registry: mean validation Dice, mean and worst test Dice"
    print_table(title, columns[:shows], [cells[:shows] for cells in shown], if_none)


def show_reasons(title: str, reasons: Iterable[dict[str, Any]]) -> None:
    """Print the rules of a verdict."""
    rows = [
        (Text("pass", "green") if reason["passed"] else Text("FAIL", "red"), reason["code"], reason["sentence"])
        for reason in reasons
    ]
    print_table(title, ("", "rule", "what was found"), rows)


def show_run(registry: Registry, run_id: str) -> None:
    """Print a run's verdict with its reasons and the model's registry table."""
    from femur_tasks.registry import queries
    from femur_tasks.steps.close import summary

    with registry.reading() as session:
        said = summary(session, run_id)
        rows = queries.model_registry(session, said["model"])
        reasons = queries.reasons(session, said["verdict_id"]) if said["verdict_id"] else []
    show_registry(rows, f"no version of {said['model']} yet")
    if reasons:
        show_reasons(f"Verdict on {said['challenger']}: {said['outcome']}", reasons)
    out.print(Text.assemble(f"run {run_id}: ", (said["state"], "bold"), f" - {said['detail']}"))


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; hands out what takes the steps done since the last call, and the total."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def advance(steps: int, total: int) -> None:
            progress.update(task, advance=steps, total=total)

        yield advance


@contextmanager
def bars() -> Iterator[Callable[[str, int | None, int | None], None]]:
    """Progress bars with rate and time left; hands out what takes a bar's name, how much is done, and the total.

    None as what is done is one more than before, None as the total is unknown.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.1f}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(name: str, done: int | None, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            if done is None:
                progress.update(tasks[name], advance=1, total=total)
            else:
                progress.update(tasks[name], completed=done, total=total)

        yield advance


@contextmanager
def watching(registry: Registry, run_id: str) -> Iterator[None]:
    """Show a run's fits and search live while the block works."""
    from threading import Event, Thread

    from rich.live import Live

    ended = Event()

    def refresh() -> None:
        # a registry that falls silent is for the block to report
        with suppress(FemurError):
            with Live(console=err, refresh_per_second=2, transient=True) as live:
                while not ended.wait(1.0):
                    live.update(progress_table(registry, run_id))
            err.print(progress_table(registry, run_id))

    thread = Thread(target=refresh, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def progress_table(registry: Registry, run_id: str) -> Group:
    """A run as it stands: its fits, each search by bracket and rung, and who trains what."""
    from femur_tasks.steps.progress import run_progress

    with registry.reading() as session:
        run = run_progress(session, run_id)
    head = f"run {run_id}: {run.state}, {run.epochs} epochs, {duration(run.device_s)} of training"
    parts: list[RenderableType] = [
        Text(head + (f", until {when(run.deadline.isoformat())} UTC" if run.deadline else ""))
    ]
    if run.fits:
        shown = run.fits if len(run.fits) <= _FITS else [fit for fit in run.fits if fit.running]
        first = "family" if len(run.fits) <= _FITS else f"running, of {len(run.fits)} fits"
        table = _lean(first, "epochs", "best val Dice")
        for fit in shown:
            table.add_row(fit.family, f"{fit.epochs} of {fit.planned_epochs or '?'}", text(fit.best_val_dice))
        parts.append(table if shown else Text(f"{len(run.fits)} fits, none running"))
    for search in run.searches:
        left = f", about {duration(search.left_s)} left" if search.left_s is not None else ""
        parts.append(
            Text(
                f"search {search.search}: {search.strategy}, {search.state}, {search.epochs} of "
                f"{search.planned_epochs} epochs, best {text(search.best_val_dice) or 'none yet'}{left}"
            )
        )
        table = _lean("bracket", "rung", "to epoch", "ended", "running", "waiting", "best val Dice")
        for rung in search.rungs:
            ended = f"{rung.ended} of {rung.planned}"
            cells = (
                rung.bracket,
                rung.rung,
                rung.to_epoch,
                ended,
                rung.running,
                rung.waiting,
                text(rung.best_val_dice),
            )
            table.add_row(*map(str, cells))
        parts.append(table)
        if search.workers:
            table = _lean("worker", "trial", "epoch")
            for worker in search.workers:
                table.add_row(worker.owner, worker.trial_id, f"{worker.epoch} of {worker.to_epoch}")
            parts.append(table)
    return Group(*parts)


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 5 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _lean(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left")
    return table
