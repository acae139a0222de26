"""`femur retrain`, `rollback` and `predict`: how a champion is made, unmade and used."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from femur_tasks.cli.failures import Stopped
from femur_tasks.cli.show import AsJson, bar, err, print_json, print_table, show_run, watching
from femur_tasks.errors import Rejected
from femur_tasks.parameters import BUDGETS, RetrainParameters

_FIELDS = RetrainParameters.model_fields


def retrain(
    dataset: Annotated[str | None, typer.Option(metavar="NAME[@DIGEST]", help=_FIELDS["dataset"].description)] = None,
    model: Annotated[str | None, typer.Option(help=_FIELDS["model"].description)] = None,
    families: Annotated[str, typer.Option(help=_FIELDS["families"].description)] = "baseline,unet,tuned",
    budget: Annotated[str | None, typer.Option(metavar="|".join(BUDGETS), help=_FIELDS["budget"].description)] = None,
    size: Annotated[int | None, typer.Option(help=_FIELDS["size"].description)] = None,
    seed: Annotated[int, typer.Option(help=_FIELDS["seed"].description)] = 0,
    force: Annotated[bool, typer.Option("--force", help=_FIELDS["force"].description)] = False,
    run_id: Annotated[str, typer.Option(help="Go on with this run, or name a new one.")] = "",
    as_json: AsJson = False,
) -> None:
    """Train, evaluate, judge and promote, without Airflow. Exits with 2 when the gate refuses.

    Without options it takes the dataset whose newest version waits longest for
    its retrain. A run that was interrupted goes on from its last epoch.

    Examples:

      femur retrain --budget smoke
      femur retrain --dataset femur@3f2a --families baseline,unet --seed 1
      femur retrain --run-id cli__2026-01-31T02-00-00
    """
    parameters = RetrainParameters.model_validate(
        {
            "dataset": dataset,
            "model": model,
            "families": families.split(","),
            "budget": budget,
            "size": size,
            "seed": seed,
            "force": force,
        }
    )
    # after the check: these take seconds to load
    from femur_tasks.steps import champion, close, run, train
    from femur_tasks.steps.context import open_context

    context = open_context()
    run_id = run_id or f"cli__{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}"
    with _resumable(run_id):
        opened = run.open_run(context, run_id, "cli", parameters)
        err.print(f"run {run_id}: {opened['why']}")
        if opened["news"]:
            with watching(context.registry, run_id):
                for family in opened["families"]:
                    if family == "tuned":
                        train.work_on_search(context, run_id, "cli")
                        train.train_winner(context, run_id)
                    else:
                        train.train_family(context, run_id, family)
                champion.decide(context, run_id, _actor(), approval=False)
        outcome = close.close_run(context, run_id)
    if as_json:
        with context.registry.reading() as session:
            print_json(close.summary(session, run_id))
    else:
        show_run(context.registry, run_id)
    if outcome["state"] == "refused":
        raise Rejected(
            f"The gate refused the challenger of run {run_id}; the champion stays.",
            "The rules that failed are above, and in `femur registry show MODEL:VERSION`.",
        )


def rollback(
    reason: Annotated[str, typer.Option(help="Why; it goes into the log.")],
    model: Annotated[str, typer.Option(help="Model whose champion steps back.")] = "femur",
    to: Annotated[int | None, typer.Option(help="Version to return to. Default: the champion before.")] = None,
) -> None:
    """Give the former champion its place back.

    The move is checked, and logged like a promotion.

    Examples:

      femur rollback --reason "overlays of 3 July look wrong"
      femur rollback --to 4 --reason "back to what was reviewed"
    """
    from femur_tasks.steps import champion
    from femur_tasks.steps.context import open_context

    moved = champion.roll_back(open_context(), model, to, _actor(), reason)
    err.print(f"champion is {moved['champion']} again, before {moved['before']}")


def predict(
    inputs: Annotated[list[Path], typer.Argument(help="NIfTI pictures, or folders of them.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder for masks and overlays.")],
    model: Annotated[str, typer.Option(help="Model whose champion predicts.")] = "femur",
    as_json: AsJson = False,
) -> None:
    """Segment pictures with the champion: mask in the picture's own geometry, and an overlay to look at.

    Exits with 2 when a picture can't be used; the others are done all the same.

    Examples:

      femur predict picture.nii.gz --out masks
      femur predict xrays/test/imgs more/ --out masks --json
    """
    from femur_tasks.serving.predict import find_inputs
    from femur_tasks.serving.predict import predict as predict_all
    from femur_tasks.steps.context import open_context

    found, context = find_inputs(inputs, folder), open_context()
    with bar("pictures") as advance:
        results = predict_all(
            context.registry, context.store, model, found, folder, on_picture=lambda: advance(1, len(found))
        )
    if as_json:
        print_json([vars(result) for result in results])
    else:
        rows = [
            (Path(result.source).name, Path(result.mask or "").name, str(result.femur_px), result.problem or "")
            for result in results
        ]
        title = f"Masks and overlays in {folder}, by the champion of {model}"
        print_table(title, ("picture", "mask", "femur px", "problem"), rows)
    err.print("Research use, not for diagnosis.")
    if problems := sum(result.problem is not None for result in results):
        raise Rejected(f"{problems} of {len(results)} pictures have a problem.", "The table above names each.")


@contextmanager
def _resumable(run_id: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as err:
        raise Stopped("stopped", f"Go on with `femur retrain --run-id {run_id}`.") from err


def _actor() -> str:
    return f"cli:{getpass.getuser()}"
