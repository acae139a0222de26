"""The end of a run: the record scored, the report written, the outcome told."""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy.orm import Session

from femur_tasks.errors import FemurError, Unreachable
from femur_tasks.logs import naming
from femur_tasks.registry.queries import newest_verdict
from femur_tasks.registry.tables import ModelVersion, Run
from femur_tasks.steps.cards import write_cards
from femur_tasks.steps.context import Context
from femur_tasks.steps.evaluate import score_others
from femur_tasks.steps.notify import tell
from femur_tasks.steps.report import write_report
from femur_tasks.steps.run import conclude, run_facts

log = logging.getLogger(__name__)


@naming("run_id")
def close_run(context: Context, run_id: str) -> dict[str, Any]:
    """Score the run's other models for the record, write cards and report of whatever came of it, and tell its outcome.

    Raises:
        NotFound: the run was never opened.
        Unreachable: the store or the registry does not answer.
        FemurError: the run reached no verdict, so that whoever scheduled it sees a failure.
    """
    with context.registry.reading() as session:
        run_facts(session, run_id)
    with context.registry.writing() as session:
        conclude(session, run_id, "failed", "a step before the outcome failed: see its log", context.now())
    for step in (score_others, write_cards):
        try:
            step(context, run_id)
        except Unreachable:
            raise  # what is missing now would be missing for good: another try closes the run
        except FemurError as err:  # the report is owed on every outcome; it shows these models without test figures
            log.warning("%s: %s", step.__name__, err)
    report_key = write_report(context, run_id)
    with context.registry.writing() as session:
        run = session.get_one(Run, run_id)
        run.report_key = report_key
        outcome = {"run_id": run_id, "state": run.state, "detail": run.detail, "report": report_key}
    tell(context)
    if outcome["state"] == "failed":
        raise FemurError(f"Expected run {run_id} to reach a verdict. Received: {outcome['detail']}.")
    return outcome


def summary(session: Session, run_id: str) -> dict[str, Any]:
    """A run's outcome with its verdict and reasons, for the CLI and the demo."""
    run, parameters, _ = run_facts(session, run_id)
    verdict = newest_verdict(session, run_id)
    challenger = session.get(ModelVersion, verdict.challenger_id) if verdict else None
    return {
        "run_id": run_id,
        "state": run.state,
        "detail": run.detail,
        "dataset": parameters.dataset,
        "model": run.model,
        "verdict_id": verdict.id if verdict else None,
        "outcome": verdict.outcome if verdict else None,
        "challenger": challenger.label if challenger else None,
        "report": run.report_key,
    }
