"""`femur`: every step without Airflow, the embedded stack, and questions to the registry."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import typer

from femur_tasks.cli import (
    cluster,
    data,
    dataset,
    demo,
    housekeeping,
    keys,
    moving,
    overview,
    predict,
    registry,
    reproduce,
    runs,
    stack,
    telling,
    training,
)
from femur_tasks.cli.failures import failures
from femur_tasks.cli.show import AsJson
from femur_tasks.logs import Lines

_PANELS = {
    "Stack": (
        demo.demo,
        stack.up,
        stack.down,
        stack.status,
        stack.config,
        overview.open_page,
        telling.notify,
        telling.metrics,
    ),
    "Data": (data.demo_data, data.ingest),
    "Training": (training.retrain, reproduce.reproduce, training.promote, training.rollback, predict.predict),
    "Registry": (housekeeping.verify, housekeeping.gc, moving.backup, moving.restore, moving.migrate),
}

_NAMES: dict[Any, str] = {overview.open_page: "open"}

app = typer.Typer(invoke_without_command=True, rich_markup_mode="rich", pretty_exceptions_show_locals=False)
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(_NAMES.get(_command), rich_help_panel=_panel)(_command)
app.add_typer(cluster.app, name="cluster", rich_help_panel="Stack")
app.add_typer(dataset.app, name="dataset", rich_help_panel="Data")
app.add_typer(runs.app, name="runs", rich_help_panel="Training")
app.add_typer(registry.app, name="registry", rich_help_panel="Registry")
app.add_typer(keys.app, name="keys", rich_help_panel="Registry")


@app.callback()
def femur(
    asked: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    as_json: AsJson = False,
) -> None:
    """Retrain, judge and serve a model that segments the femur in AP pelvis X-rays.

    Alone it shows how things stand: the stack, the last night, the champions, what waits.

    First steps, with synthetic pictures:

      femur up                              start store, registry, Airflow
      femur demo-data --out xrays           make 100 radiographs with masks
      femur ingest xrays                    check them, make a dataset version
      femur retrain --budget smoke          train, judge, promote the winner
      femur registry list                   see what came of it
      femur predict xrays/test/imgs --out masks   segment with the champion

    Exit codes: 0 done, 1 wrong call or failure, 2 data or model refused,
    3 store or registry silent, 130 stopped by Ctrl-C.
    """
    failures.traceback = debug
    if asked.invoked_subcommand is None:
        overview.show_overview(as_json)


def main() -> None:
    """Run the CLI; a failure ends in words and in one of the exit codes that `femur --help` names."""
    with failures.told():
        app()


logging.getLogger("femur_tasks").addHandler(Lines())
