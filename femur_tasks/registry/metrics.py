"""What the registry holds, as metrics for Prometheus: read at each scrape, so that there is nothing to keep in step.

Every query touches an index or a table of the night's size; none reads the cases of evaluations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, aliased

from femur_tasks.registry.tables import (
    Champion,
    DatasetDrift,
    DatasetVersion,
    Evaluation,
    FitEpoch,
    IncomingObject,
    Ingest,
    ModelVersion,
    Notification,
    Run,
    Trial,
    TrialEpoch,
    VerdictRow,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SCHEDULED = "scheduled__"


def exposition(session: Session, now: datetime) -> bytes:
    """Every metric in Prometheus' text format.

    Args:
        session: of the registry, for reading.
        now: what ages are counted to.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Registered(session, now))
    return generate_latest(registry)


def samples(session: Session, now: datetime) -> list[dict[str, Any]]:
    """The same as name, labels and value each."""
    return [
        {"name": sample.name, "labels": sample.labels, "value": sample.value}
        for metric in _Registered(session, now).collect()
        for sample in metric.samples
    ]


class _Registered(Collector):
    """Asked once, by one exposition."""

    def __init__(self, session: Session, now: datetime) -> None:
        self._session, self._now = session, now

    def collect(self) -> Iterator[Metric]:
        yield from self._champions()
        yield from self._models()
        yield from self._runs()
        yield from self._searches()
        yield from self._waits()
        yield from self._datasets()
        yield self._counter("femur_notifications", "Attempts at a message.", ("kind", "outcome"), select(
            Notification.kind, Notification.outcome, func.count()
        ).where(Notification.outcome != "trying").group_by(Notification.kind, Notification.outcome))  # fmt: skip

    def _champions(self) -> Iterator[Metric]:
        version = _gauge("femur_champion_version", "Version of the champion.", "model", "family")
        age = _gauge("femur_champion_age_seconds", "Since when the champion is in service.", "model")
        dice = _gauge("femur_champion_test_dice", "Mean hard Dice of the champion's newest test.", "model")
        worst = _gauge("femur_champion_worst_dice", "The worst case's.", "model")
        hd95 = _gauge("femur_champion_hd95_percent", "Mean HD95, per cent of the picture's height.", "model")
        champions = select(Champion, ModelVersion).join(ModelVersion, ModelVersion.id == Champion.model_version_id)
        for champion, model in self._session.execute(champions.order_by(Champion.model)):
            version.add_metric([champion.model, model.family], model.version)
            age.add_metric([champion.model], self._since(champion.since))
            tested = select(Evaluation).where(Evaluation.model_version_id == model.id, Evaluation.split == "test")
            found = self._session.scalars(tested.order_by(Evaluation.id.desc()).limit(1)).first()
            figures = (found.mean_dice, found.worst_dice, found.mean_hd95_pct) if found else ()
            for family, value in zip((dice, worst, hd95), figures, strict=False):
                if value is not None:
                    family.add_metric([champion.model], value)
        yield from (version, age, dice, worst, hd95)

    def _models(self) -> Iterator[Metric]:
        yield self._gauge("femur_model_versions", "Model versions.", ("model", "family"), select(
            ModelVersion.name, ModelVersion.family, func.count()
        ).group_by(ModelVersion.name, ModelVersion.family))  # fmt: skip
        yield self._counter("femur_verdicts", "Verdicts of the gate.", ("model", "outcome"), select(
            ModelVersion.name, VerdictRow.outcome, func.count()
        ).join(ModelVersion, ModelVersion.id == VerdictRow.challenger_id)
         .group_by(ModelVersion.name, VerdictRow.outcome))  # fmt: skip
        last = select(func.max(VerdictRow.id)).where(VerdictRow.level_left.is_not(None)).join(
            ModelVersion, ModelVersion.id == VerdictRow.challenger_id
        ).group_by(ModelVersion.name)  # fmt: skip
        left = "What the newest look left of the gate's level on its test cases."
        yield self._gauge("femur_gate_level_left", left, ("model",), select(
            ModelVersion.name, VerdictRow.level_left
        ).join(ModelVersion, ModelVersion.id == VerdictRow.challenger_id).where(VerdictRow.id.in_(last)))  # fmt: skip

    def _runs(self) -> Iterator[Metric]:
        yield self._gauge("femur_runs", "Runs by state.", ("model", "state"), select(
            Run.model, Run.state, func.count()
        ).group_by(Run.model, Run.state))  # fmt: skip
        age = _gauge("femur_last_run_age_seconds", "Since when the newest run of each state ended.", "model", "state")
        ended = select(Run.model, Run.state, func.max(Run.finished_at)).where(Run.finished_at.is_not(None))
        for model, state, at in self._session.execute(ended.group_by(Run.model, Run.state)):
            if at is not None:
                age.add_metric([model, state], self._since(at))
        yield age

    def _searches(self) -> Iterator[Metric]:
        trials = _gauge("femur_trials", "Trials of each model's newest run with a search.", "model", "state")
        device = _gauge("femur_device_seconds", "Training of each model's newest run.", "model", "of")
        for run in self._newest_runs():
            states = select(Trial.state, func.count()).where(Trial.run_id == run.run_id).group_by(Trial.state)
            for state, times in self._session.execute(states):
                trials.add_metric([run.model, state], times)
            for name, epochs in (("fits", FitEpoch), ("trials", TrialEpoch)):
                spent = select(func.sum(epochs.seconds)).where(epochs.run_id == run.run_id)
                device.add_metric([run.model, name], self._session.scalar(spent) or 0.0)
        yield from (trials, device)

    def _waits(self) -> Iterator[Metric]:
        """How long things waited for their turn: drops until now, dataset versions and runs before the newest run."""
        wait = _gauge("femur_queue_wait_seconds", "Wait of what is in a queue, or was last.", "queue", "model")
        oldest = self._session.scalar(select(func.min(IncomingObject.seen_at)).where(IncomingObject.state == "waiting"))
        wait.add_metric(["incoming", ""], self._since(oldest) if oldest else 0.0)
        for run in self._newest_runs():
            version = self._session.get(DatasetVersion, run.dataset_digest)
            if version:
                wait.add_metric(["dataset_version", run.model], _seconds(version.created_at, run.started_at))
            if due := _due_at(run):
                wait.add_metric(["run", run.model], _seconds(due, run.started_at))
            below = aliased(Trial)
            rises = select(below.finished_at, Trial.started_at).join(
                below,
                (below.run_id == Trial.run_id) & (below.search == Trial.search) & (below.trial_id == Trial.parent_id),
            )
            times = self._session.execute(rises.where(Trial.run_id == run.run_id))
            if waited := [_seconds(ended, began) for ended, began in times if ended and began]:
                wait.add_metric(["trial", run.model], sum(waited) / len(waited))
        yield wait

    def _datasets(self) -> Iterator[Metric]:
        cases = _gauge("femur_dataset_cases", "Cases of each dataset's newest version.", "dataset", "split")
        drifted = _gauge("femur_drifted_features", "Features of the newest version that moved.", "dataset", "level")
        versions = select(DatasetVersion).order_by(DatasetVersion.name, DatasetVersion.created_at.desc())
        for name, its_versions in groupby(self._session.scalars(versions), lambda version: version.name):
            newest = next(its_versions)
            for split in ("train", "val", "test"):
                cases.add_metric([name, split], getattr(newest, f"{split}_cases"))
            levels = select(DatasetDrift.level, func.count(func.distinct(DatasetDrift.feature)).label("times"))
            of_newest = levels.where(DatasetDrift.digest == newest.digest).group_by(DatasetDrift.level)
            counts = {row.level: row.times for row in self._session.execute(of_newest)}
            for level in ("some", "large"):
                drifted.add_metric([name, level], counts.get(level, 0))
        yield from (cases, drifted)
        yield self._counter("femur_ingests", "Ingests by what came of them.", ("dataset", "state"), select(
            Ingest.dataset, Ingest.state, func.count()
        ).group_by(Ingest.dataset, Ingest.state))  # fmt: skip
        problems = _gauge(
            "femur_ingest_problems", "Problems of each dataset's newest ingest.", "dataset", "code", "severity"
        )
        last = select(Ingest.dataset, func.max(Ingest.finished_at)).group_by(Ingest.dataset)
        for dataset, at in self._session.execute(last):
            its = select(Ingest.problems).where(Ingest.dataset == dataset, Ingest.finished_at == at).limit(1)
            found = self._session.scalars(its).one()
            kinds = Counter((one["code"], "error" if one["is_error"] else "warning") for one in found)
            for (code, severity), times in sorted(kinds.items()):
                problems.add_metric([dataset, code, severity], times)
        yield problems

    def _newest_runs(self) -> list[Run]:
        """Of each model the newest run that trains, or trained."""
        last = select(func.max(Run.started_at)).where(Run.dataset_digest.is_not(None), Run.state != "nothing_new")
        rows = select(Run).where(Run.model != "", Run.started_at.in_(last.group_by(Run.model)))
        return list({run.model: run for run in self._session.scalars(rows.order_by(Run.started_at))}.values())

    def _since(self, at: datetime) -> float:
        return _seconds(at, self._now)

    def _gauge(self, name: str, says: str, labels: tuple[str, ...], rows: Select[*tuple[Any, ...]]) -> Metric:
        return _filled(GaugeMetricFamily(name, says, labels=labels), self._session.execute(rows))

    def _counter(self, name: str, says: str, labels: tuple[str, ...], rows: Select[*tuple[Any, ...]]) -> Metric:
        return _filled(CounterMetricFamily(name, says, labels=labels), self._session.execute(rows))


def _gauge(name: str, says: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, says, labels=labels)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Iterable[Iterable[object]]) -> Metric:
    """The last column is the value, the others are labels."""
    for *labels, value in rows:
        family.add_metric([str(label) for label in labels], float(str(value)))
    return family


def _seconds(earlier: datetime, later: datetime) -> float:
    return max(0.0, (later - earlier).total_seconds())


def _due_at(run: Run) -> datetime | None:
    """When a scheduled run was due, as Airflow writes it into the run's id."""
    try:
        return datetime.fromisoformat(run.run_id.removeprefix(_SCHEDULED)) if run.trigger == "schedule" else None
    except ValueError:
        return None
