"""`femur reproduce`: the reference's experiments on one dataset version, as a table."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from femur_tasks.cli.failures import Stopped
from femur_tasks.cli.show import AsJson, duration, err, out, print_json, print_table, watching
from femur_tasks.errors import FemurError, Unreachable
from femur_tasks.parameters import ReproduceParameters
from femur_tasks.search.experiments import EXPERIMENTS, REPRODUCE_BUDGETS

if TYPE_CHECKING:
    from femur_tasks.registry.database import Registry

_FIELDS = ReproduceParameters.model_fields


def reproduce(
    dataset: Annotated[str, typer.Option(metavar="NAME[@DIGEST]", help=_FIELDS["dataset"].description)] = _FIELDS[
        "dataset"
    ].default,
    budget: Annotated[
        str, typer.Option(metavar="|".join(REPRODUCE_BUDGETS), help=_FIELDS["budget"].description)
    ] = _FIELDS["budget"].default,
    size: Annotated[int | None, typer.Option(help=_FIELDS["size"].description)] = None,
    seed: Annotated[int, typer.Option(help=_FIELDS["seed"].description)] = _FIELDS["seed"].default,
    run_id: Annotated[str, typer.Option(help="Go on with this reproduction, or name a new one.")] = "",
    report: Annotated[Path | None, typer.Option(help="Also write the page to this file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the reference's experiments, and lay their table beside the reference's figures.

    Baseline and U-Net with both losses, augmentation, the learning-rate sweep, the grid,
    Hyperband, and random search at Hyperband's epochs. What is trained is kept: a
    reproduction that was stopped goes on where it was.

    Examples:

      femur reproduce --budget smoke
      femur reproduce --budget standard --report table.html
      femur reproduce --run-id reproduce__2026-01-31T02-00-00
    """
    asked = ReproduceParameters.model_validate({"dataset": dataset, "budget": budget, "size": size, "seed": seed})
    if dry_run:
        _show_plan(asked)
        return
    from femur_tasks.steps.context import open_context
    from femur_tasks.steps.reproduce import conclude_reproduction, open_reproduction, run_experiment

    context = open_context()
    run_id = run_id or f"reproduce__{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}"
    opened = open_reproduction(context, run_id, "cli", asked)
    folds = f", in {opened['folds']} folds, because its test split is too small" if opened["folds"] > 1 else ""
    err.print(f"run {run_id}: {opened['dataset'][:-52]}{folds}", highlight=False)
    again = f"Go on with `femur reproduce --run-id {run_id}`."
    try:
        with watching(context.registry, run_id):
            for name in opened["experiments"]:
                try:
                    run_experiment(context, run_id, name, "cli")
                except Unreachable:
                    err.print(again, highlight=False)
                    raise
                except FemurError as failed:  # it takes no row away from the others
                    err.print(f"{name} failed: {failed.what}", highlight=False, markup=False)
    except KeyboardInterrupt as stopped:
        raise Stopped("stopped", again) from stopped
    missing = None
    try:
        conclude_reproduction(context, run_id)
    except Unreachable:
        raise
    except FemurError as incomplete:
        missing = incomplete
    rows = _rows(context.registry, run_id)
    if as_json:
        print_json(rows)
    elif rows:
        _show(rows)
    if report and (key := _report_key(context.registry, run_id)):
        report.write_bytes(context.store.get(key))
        err.print(f"the page is {report}", highlight=False)
    if missing:
        raise missing


def _report_key(registry: Registry, run_id: str) -> str | None:
    from femur_tasks.registry.queries import find_run

    with registry.reading() as session:
        return find_run(session, run_id).report_key


def _rows(registry: Registry, run_id: str) -> list[dict[str, Any]]:
    from sqlalchemy import select

    from femur_tasks.registry.tables import ExperimentRow

    with registry.reading() as session:
        found = session.scalars(
            select(ExperimentRow).where(ExperimentRow.run_id == run_id).order_by(ExperimentRow.position)
        )
        return [{column.key: getattr(row, column.key) for column in ExperimentRow.__table__.columns} for row in found]


def _show(rows: list[dict[str, Any]]) -> None:
    cells = [
        (
            row["title"], row["reference"],
            *(f"{row[f'{split}_dice']:.4f}\n{row[f'{split}_low']:.3f}-{row[f'{split}_high']:.3f}"
              for split in ("val", "test")),
            f"{row['epochs']}\n{duration(row['seconds'])}",
        )
        for row in rows
    ]  # fmt: skip
    title = "Reproduction: mean Dice, its 95 % interval, epochs and what they took"
    print_table(title, ("experiment", "reference", "val", "test", "epochs"), cells)
    for row in rows[1:]:
        out.print(f"{row['title']}: {row['sentence']}", highlight=False, markup=False)


def _show_plan(asked: ReproduceParameters) -> None:
    from femur_tasks.search.experiments import spec_of, titled

    told = REPRODUCE_BUDGETS[asked.budget]
    cells = []
    for experiment in EXPERIMENTS:
        trials = ""
        if experiment.strategy:
            spec = spec_of(experiment, told, asked.seed)
            trials = f"{spec.samples or 'all'} of up to {spec.max_epochs} epochs"
        fits = f"{told.seeds} of up to {told.epochs} epochs"
        cells.append((titled(experiment, told), experiment.reference, trials, fits))
    title = f"Budget {asked.budget}, {asked.size or told.size} px or what the dataset version has, if that is less"
    print_table(title, ("experiment", "reference", "trials", "fits"), cells)
