"""`femur retrain`, `promote` and `rollback`: how a champion is made and unmade."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from femur_tasks.cli.failures import Stopped
from femur_tasks.cli.show import AsJson, err, print_json, show_run, watching
from femur_tasks.errors import FemurError, Rejected
from femur_tasks.parameters import BUDGETS, PromoteParameters, RetrainParameters, RollbackParameters

if TYPE_CHECKING:
    from femur_tasks.steps.context import Context

_FAMILIES = ",".join(RetrainParameters().families)
_FIELDS, _ROLLBACK = RetrainParameters.model_fields, RollbackParameters.model_fields
_PROMOTE = PromoteParameters.model_fields


def retrain(
    dataset: Annotated[str | None, typer.Option(metavar="NAME[@DIGEST]", help=_FIELDS["dataset"].description)] = None,
    model: Annotated[str | None, typer.Option(help=_FIELDS["model"].description)] = None,
    families: Annotated[str, typer.Option(help=_FIELDS["families"].description)] = ",".join(
        _FIELDS["families"].default
    ),
    budget: Annotated[str | None, typer.Option(metavar="|".join(BUDGETS), help=_FIELDS["budget"].description)] = None,
    size: Annotated[int | None, typer.Option(help=_FIELDS["size"].description)] = None,
    seed: Annotated[int, typer.Option(help=_FIELDS["seed"].description)] = _FIELDS["seed"].default,
    hours: Annotated[float | None, typer.Option(help=_FIELDS["hours"].description)] = None,
    until: Annotated[str | None, typer.Option(metavar="HH:MM", help=_FIELDS["until"].description)] = None,
    force: Annotated[bool, typer.Option("--force", help=_FIELDS["force"].description)] = False,
    require_approval: Annotated[
        bool, typer.Option("--require-approval", help=_FIELDS["require_approval"].description)
    ] = False,
    run_id: Annotated[str, typer.Option(help="Go on with this run, or name a new one.")] = "",
    as_json: AsJson = False,
) -> None:
    """Train, evaluate, judge and promote, without Airflow. Exits with 2 when the gate refuses.

    Without options it takes the dataset whose newest version waits longest for
    its retrain. A run that was interrupted goes on from its last epoch.

    Examples:

      femur retrain --budget smoke
      femur retrain --until 06:00
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
            "hours": hours,
            "until": until,
            "force": force,
            "require_approval": require_approval,
        }
    )
    # after the check: these take seconds to load
    from femur_tasks.steps import champion, close, run, search, train
    from femur_tasks.steps.context import open_context

    context = open_context()
    run_id = run_id or f"cli__{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}"
    opened = run.open_run(context, run_id, "cli", parameters)
    err.print(f"run {run_id}: {opened['why']}")
    with _resumable(context, run_id):
        if opened["news"]:
            with watching(context.registry, run_id):
                for family in sorted(opened["families"], key="tuned".__eq__):  # the search last: it takes all time left
                    if family == "tuned":
                        search.work_on_search(context, run_id, "cli")
                        search.train_winner(context, run_id)
                    else:
                        train.train_family(context, run_id, family)
                decided = champion.decide(context, run_id, _actor())
            if decided["state"] == "awaits_approval":
                champion.settle_approval(context, decided["verdict_id"], _approved(decided, run_id), _actor())
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


def promote(
    version: Annotated[str, typer.Argument(metavar="MODEL:VERSION", help=_PROMOTE["version"].description)],
    reason: Annotated[str, typer.Option(help=_PROMOTE["reason"].description)],
    override: Annotated[bool, typer.Option("--override", help=_PROMOTE["override"].description)] = False,
) -> None:
    """Give a model version the champion's place by your word.

    Its newest verdict must promote it, against the champion of now. --override goes against the gate.

    Examples:

      femur promote femur:3 --reason "approved on Monday"
      femur promote femur:3 --override --reason "the refused side was mislabelled, ticket 12"
    """
    asked = PromoteParameters.model_validate({"version": version, "reason": reason, "override": override})
    from femur_tasks.steps import champion
    from femur_tasks.steps.context import open_context

    model, _, number = asked.version.partition(":")
    told = (model, int(number), _actor(), asked.reason, asked.override)
    moved = champion.promote_by_hand(open_context(), *told)
    how = " by an override" if moved["kind"] == "override" else ""
    err.print(f"champion is {moved['champion']}{how}, before {moved['before'] or 'none'}")


def rollback(
    reason: Annotated[str, typer.Option(help=_ROLLBACK["reason"].description)],
    model: Annotated[str, typer.Option(help=_ROLLBACK["model"].description)] = _ROLLBACK["model"].default,
    to: Annotated[int | None, typer.Option(help=_ROLLBACK["version"].description)] = None,
) -> None:
    """Give the former champion its place back.

    The move is checked, and logged like a promotion.

    Examples:

      femur rollback --reason "overlays of 3 July look wrong"
      femur rollback --to 4 --reason "back to what was reviewed"
    """
    asked = RollbackParameters.model_validate({"model": model, "version": to, "reason": reason})
    from femur_tasks.steps import champion
    from femur_tasks.steps.context import open_context

    moved = champion.roll_back(open_context(), asked.model, asked.version, _actor(), asked.reason)
    err.print(f"champion is {moved['champion']} again, before {moved['before']}")


@contextmanager
def _resumable(context: Context, run_id: str) -> Iterator[None]:
    """A run that is stopped stays open, one that fails is closed as failed; either way it says how to go on."""
    from femur_tasks.steps.close import close_run

    again = f"Go on with `femur retrain --run-id {run_id}`."
    try:
        yield
    except (KeyboardInterrupt, typer.Abort) as stopped:
        raise Stopped("stopped", again) from stopped
    except Stopped:
        raise
    except Exception:
        with suppress(FemurError):
            close_run(context, run_id)
        err.print(again)
        raise


def _approved(decided: dict[str, Any], run_id: str) -> bool:
    """Ask whoever sits at the terminal."""
    if not sys.stdin.isatty():
        raise Stopped(
            f"Expected a person to approve {decided['challenger']}. Received: no terminal to ask at.",
            f"Answer there with `femur retrain --run-id {run_id}`.",
        )
    for rule in decided["rules"]:
        err.print(f"- {rule}", markup=False, highlight=False)
    return typer.confirm(f"Promote {decided['challenger']}?", err=True)


def _actor() -> str:
    return f"cli:{getpass.getuser()}"
