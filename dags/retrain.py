"""Retrain on the newest dataset version and let the gate decide.

Starts nightly, on the event of a new dataset version, and by hand with the form. The ledger of dataset
versions decides what there is to do: an event only wakes the run, and one that finds nothing new ends green.
Baseline, U-Net and the search's workers run side by side in the pool `gpu`. A killed task is tried again and
goes on from its last checkpoint.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import AssetOrTimeSchedule, dag, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from wiring import DATASET_VERSIONS, DEFAULTS, GPU, JUDGE_QUEUE, JUDGES, actor, form, nightly, note, trigger

from femur_tasks.errors import FemurError, Unreachable
from femur_tasks.parameters import RetrainParameters
from femur_tasks.settings import settings

_ANY = "none_failed_min_one_success"
_EVIDENCE = """\
{% set found = ti.xcom_pull('decide') %}
{{ found['challenger'] }} against {{ found['champion'] or 'no champion yet' }}, verdict {{ found['verdict_id'] }}:
{% for rule in found['rules'] %}
- {{ rule }}
{% endfor %}
"""
APPROVE, REJECT = "Approve", "Reject"


@dag(
    schedule=AssetOrTimeSchedule(timetable=nightly(settings().retrain_cron), assets=[DATASET_VERSIONS]),
    catchup=False,
    max_active_runs=1,  # a night's deadline counts from its start: a run that waited for slots would lose its time
    max_active_tasks=settings().search_workers + 2,  # baseline and U-Net beside the search; the pool sets the limit
    default_args=DEFAULTS,
    params=form(RetrainParameters),
    tags=["femur", "training"],
    doc_md=__doc__,
)
def retrain() -> None:
    @task.short_circuit(
        ignore_downstream_trigger_rules=False, doc_md="Pin the dataset version, or end early and say why."
    )
    def open_run(params: dict[str, Any], run_id: str, dag_run: Any) -> dict[str, Any] | None:
        from femur_tasks.steps import run
        from femur_tasks.steps.context import open_context

        opened = run.open_run(open_context(), run_id, trigger(dag_run), RetrainParameters(**params))
        print(opened["why"])  # noqa: T201
        return opened if opened["news"] else None

    @task(**GPU)
    def train(family: str, opened: dict[str, Any]) -> dict[str, Any]:
        from femur_tasks.steps.context import open_context
        from femur_tasks.steps.train import train_family

        _only(opened, family)
        return train_family(open_context(), opened["run_id"], family)

    @task(**GPU, doc_md="Lease the next trial, train it, report, until the search is done.")
    def search_worker(number: int, opened: dict[str, Any]) -> dict[str, Any]:
        from femur_tasks.steps.context import open_context
        from femur_tasks.steps.search import work_on_search

        _only(opened, "tuned")
        return work_on_search(open_context(), opened["run_id"], f"worker-{number}")

    @task(
        **GPU,
        trigger_rule="all_done",  # a worker that failed for good takes no night away from what the others found
        doc_md="When no search worker works any more, fit the best configuration that they found at the full budget.",
    )
    def train_winner(opened: dict[str, Any] | None) -> dict[str, Any]:
        from femur_tasks.steps.context import open_context
        from femur_tasks.steps.search import train_winner

        if opened is None:
            raise AirflowSkipException("no run was opened")
        _only(opened, "tuned")
        return train_winner(open_context(), opened["run_id"])

    @task(**JUDGES, trigger_rule=_ANY, doc_md="Sign and score challenger and champion on the frozen test cases.")
    def evaluate(opened: dict[str, Any]) -> dict[str, Any]:
        from femur_tasks.steps import evaluate
        from femur_tasks.steps.context import open_context

        return evaluate.evaluate(open_context(), opened["run_id"])

    @task(queue=JUDGE_QUEUE, doc_md="Ask the gate; promote at once unless a person is to be asked.")
    def decide(opened: dict[str, Any], dag_run: Any) -> dict[str, Any]:
        from femur_tasks.steps import champion
        from femur_tasks.steps.context import open_context

        return champion.decide(open_context(), opened["run_id"], actor(dag_run))

    @task.short_circuit(ignore_downstream_trigger_rules=False, doc_md="Go on only where a person is to be asked.")
    def needs_approval(decided: dict[str, Any]) -> bool:
        return decided["state"] == "awaits_approval"

    approve = HITLOperator(
        task_id="approve",
        subject="Promote {{ ti.xcom_pull('decide')['challenger'] }}?",
        body=_EVIDENCE,
        options=[APPROVE, REJECT],
        defaults=REJECT,
        response_timeout=timedelta(hours=12),
        execution_timeout=None,
        doc_md="A person's word, bound to this verdict: after 12 hours without one it is a no.",
    )

    @task(
        queue=JUDGE_QUEUE,
        doc_md="Promote, or decline, as the person said; a champion that moved since ends as `stale_champion`.",
    )
    def promote(decided: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        from femur_tasks.steps import champion
        from femur_tasks.steps.context import open_context

        person = (answer["responded_by_user"] or {}).get("name") or "nobody within 12 hours"
        approved = answer["chosen_options"] == [APPROVE]
        return champion.settle_approval(open_context(), decided["verdict_id"], approved, f"airflow:{person}")

    @task(
        **JUDGES,
        trigger_rule="all_done",
        on_failure_callback=None,  # the step tells it
        doc_md="Score the other models for the record, write the report, and tell what came of the run.",
    )
    def report(run_id: str) -> dict[str, Any]:
        from femur_tasks.steps.close import close_run
        from femur_tasks.steps.context import open_context

        try:
            outcome = close_run(open_context(), run_id)
        except Unreachable:
            raise  # the store may be back at the next try
        except FemurError as err:
            note("retrain", run_id, err.what)
            raise AirflowFailException(err.what) from err
        note("retrain", run_id, f"{outcome['state'].replace('_', ' ')}: {outcome['detail']}")
        return outcome

    @task(
        outlets=[DATASET_VERSIONS],
        trigger_rule="all_done",
        doc_md="Wake the next run while versions wait that no run has tried: one run retrains one version.",
    )
    def wake_next(run_id: str, outlet_events: Any) -> None:
        from femur_tasks.steps import run
        from femur_tasks.steps.context import open_context

        waiting = run.untried(open_context(), run_id)
        if not waiting:
            raise AirflowSkipException("no version waits that this run should wake another for")
        outlet_events[DATASET_VERSIONS].extra = {"waiting": waiting}

    opened = open_run()
    winner = train_winner(opened)
    search_worker.partial(opened=opened).expand(number=list(range(settings().search_workers))) >> winner
    # where slots are few, before the search: it ends in time for its winner's fit, and for no other
    first = {"priority_weight": 50}
    baseline = train.override(task_id="baseline", doc_md="The dense baseline of the reference.", **first)(
        "baseline", opened
    )
    unet = train.override(task_id="unet", doc_md="The U-Net of the reference.", **first)("unet", opened)
    evaluated = evaluate(opened)
    [baseline, unet, winner] >> evaluated
    decided = decide(opened)
    evaluated >> decided
    asked = needs_approval(decided)
    promoted = promote(decided, approve.output)
    asked >> approve
    outcome = [baseline, unet, winner, decided, promoted]
    outcome >> report()  # never while something of the run still trains
    outcome >> wake_next()  # beside the report: behind it, it would turn a run green whose report turns it red


def _only(opened: dict[str, Any], family: str) -> None:
    if family not in opened["families"]:
        raise AirflowSkipException(f"this run trains {', '.join(opened['families'])}")


retrain()
