"""What people are to be told: everything of the last days that the registry holds, by name, with its message."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from femur_tasks import messages
from femur_tasks.messages import Kind, Links, Message, Scored
from femur_tasks.registry.queries import newest_evaluation, newest_verdict, reasons_of
from femur_tasks.registry.tables import (
    Champion,
    Dataset,
    DatasetDrift,
    DatasetVersion,
    EvaluationCase,
    Ingest,
    PredictionDrift,
    PredictionRate,
    PredictionRun,
    Promotion,
    Run,
    VerdictRow,
)
from femur_tasks.settings import Settings
from femur_tasks.steps.evaluate import label
from femur_tasks.steps.run import CONCLUDED

_CONFIDENCE = 0.95
_DAYS = 3
"""What is older is no news: whoever names a place for messages is not told the whole past."""
_LONGEST_RUN = timedelta(days=2)
_BY_HAND = "cli"
_PREDICTS = "predict_incoming"


@dataclass(frozen=True)
class Event:
    """One thing that happened; its message is written only when it is due."""

    name: str
    kind: Kind
    message: Callable[[], Message]


def happened(session: Session, settings: Settings, now: datetime) -> Iterator[Event]:
    """What happened in the last three days, oldest kind first; messages are written while the session is open."""
    since, links = now - timedelta(days=_DAYS), Links(settings.airflow_url)
    for promotion in session.scalars(select(Promotion).where(Promotion.at >= since).order_by(Promotion.id)):
        name = f"promotion/{promotion.id}"
        yield Event(name, "promotion", partial(_promotion, session, name, promotion, links))
    ended = select(Run).where(Run.started_at >= since - _LONGEST_RUN, Run.finished_at >= since)
    for run in session.scalars(ended.where(Run.state.in_(("refused", "declined", "stale_champion")))):
        name = f"refusal/{run_name(run)}"
        yield Event(name, "refusal", partial(_refusal, session, name, run, links))
    for run in session.scalars(ended.where(Run.state == "failed")):
        name = f"failure/{run_name(run)}"
        what = f"{dag_of(run) or 'retrain'} {run.run_id}"
        shown = links.run(dag_of(run), run.run_id)
        yield Event(name, "failure", partial(messages.failure, name, what, run.detail, shown))
    for ingest in session.scalars(select(Ingest).where(Ingest.finished_at >= since, Ingest.state == "refused")):
        if not ingest.ingest_id.startswith(_BY_HAND):  # whoever typed it has read it
            name = f"refusal/ingest/{ingest.ingest_id}"
            yield Event(name, "refusal", partial(_refused_ingest, name, ingest, links))
    drifted = (
        select(DatasetVersion)
        .join(DatasetDrift, DatasetDrift.digest == DatasetVersion.digest)
        .where(DatasetVersion.created_at >= since, DatasetDrift.level == "large")
        .distinct()
    )
    for version in session.scalars(drifted.with_only_columns(DatasetVersion.digest)):
        name = f"drift/{version}"
        yield Event(name, "drift", partial(_drift, session, name, version, links))
    predicted = select(PredictionRun).where(PredictionRun.started_at >= since - _LONGEST_RUN)
    for night in session.scalars(predicted.where(PredictionRun.finished_at >= since)):
        name = f"{night.model}/{night.run_id}"
        if night.refused or night.flagged:
            yield Event(f"incoming/{name}", "incoming", partial(_incoming, session, f"incoming/{name}", night, links))
        if moved := _newly_moved(session, night):
            told = partial(_incoming_drift, session, f"drift/incoming/{name}", night, moved, links)
            yield Event(f"drift/incoming/{name}", "drift", told)


def silence(session: Session, settings: Settings, now: datetime) -> Iterator[Event]:
    """Models for which no run came to an outcome for `no_news_nights` nights; told anew after as many more."""
    zone = ZoneInfo(settings.timezone)
    first = select(Dataset.model, func.min(DatasetVersion.created_at)).join(
        DatasetVersion, DatasetVersion.name == Dataset.name
    )
    for model, began in session.execute(first.group_by(Dataset.model)):
        last = select(func.max(Run.finished_at)).where(Run.model == model, Run.state.in_(CONCLUDED))
        since = session.scalar(last) or began
        nights = (now.astimezone(zone).date() - since.astimezone(zone).date()).days
        if nights >= settings.no_news_nights:
            name = f"no_news/{model}/{since:%Y-%m-%dT%H:%M:%S}/{nights // settings.no_news_nights}"
            told = (session, name, model, since, nights, Links(settings.airflow_url))
            yield Event(name, "no_news", partial(_no_news, *told))


def dag_of(run: Run) -> str:
    """The DAG whose run it is, empty for a run of the CLI."""
    if run.trigger == _BY_HAND:
        return ""
    return "retrain" if run.model else "reproduce"


def run_name(run: Run) -> str:
    """What its events are called by: two DAGs may have runs of one id."""
    return f"{dag_of(run) or _BY_HAND}/{run.run_id}"


def _promotion(session: Session, name: str, row: Promotion, links: Links) -> Message:
    verdict = session.get(VerdictRow, row.verdict_id) if row.verdict_id else None
    run = session.get(Run, verdict.run_id) if verdict else None
    gain = None
    if verdict and row.kind == "promote" and verdict.mean_difference is not None:
        low, high = verdict.difference_low, verdict.difference_high
        gain = (verdict.mean_difference, low or 0.0, high or 0.0)
    why = run.detail if run and row.kind == "promote" and run.state == "promoted" else row.reason
    shown = links.run(dag_of(run), run.run_id) if run else links.page()
    scored = _scored(session, row.to_id, verdict.manifest_digest if verdict else None)
    told = (label(session, row.to_id), label(session, row.from_id), row.actor, why, scored, gain, shown)
    return messages.promotion(name, row.kind, *told)


def _refusal(session: Session, name: str, run: Run, links: Links) -> Message:
    verdict = newest_verdict(session, run.run_id)
    why = [run.detail]
    if verdict and run.state == "refused":
        why = [reason.sentence for reason in reasons_of(session, verdict.id) if not reason.passed] or why
    stays = session.get(Champion, run.model)
    return messages.refusal(
        name,
        label(session, verdict.challenger_id) if verdict else run.model,
        label(session, stays.model_version_id) if stays else "",
        why,
        _scored(session, verdict.challenger_id, verdict.manifest_digest) if verdict else None,
        links.run(dag_of(run), run.run_id),
    )


def _refused_ingest(name: str, row: Ingest, links: Links) -> Message:
    found = Counter(problem["code"] for problem in row.problems if problem["is_error"])
    return messages.refused_ingest(name, row.dataset, row.source, found.most_common(), links.page())


def _drift(session: Session, name: str, digest: str, links: Links) -> Message:
    version = session.get_one(DatasetVersion, digest)
    large = select(DatasetDrift).where(DatasetDrift.digest == digest, DatasetDrift.level == "large")
    worst: dict[str, DatasetDrift] = {}
    for row in session.scalars(large.order_by(DatasetDrift.split != "all", DatasetDrift.psi.desc())):
        worst.setdefault(row.feature, row)  # all splits together, else the split that moved most
    found = [f"{row.feature} of {row.split} cases: PSI {row.psi:.2f}, KS {row.ks:.2f}" for row in worst.values()]
    against = session.get_one(DatasetVersion, next(iter(worst.values())).against_digest)
    new, old = (f"{one.name}@{one.digest[:12]}" for one in (version, against))
    return messages.drift(name, new, old, found, links.page())


def _incoming(session: Session, name: str, night: PredictionRun, links: Links) -> Message:
    rates = session.scalars(
        select(PredictionRate)
        .where(PredictionRate.run_id == night.run_id, PredictionRate.model == night.model, PredictionRate.pictures > 0)
        .order_by(PredictionRate.pictures.desc(), PredictionRate.flag)
    )
    counts = [(rate.flag, rate.pictures) for rate in rates]
    odd = (night.refused or 0) + (night.flagged or 0)
    version = label(session, night.model_version_id)
    return messages.incoming(
        name, night.model, version, night.pictures or 0, counts, odd, links.run(_PREDICTS, night.run_id)
    )


def _newly_moved(session: Session, night: PredictionRun) -> list[PredictionDrift]:
    """The features of incoming pictures that lie far from the training data, and did not the night before."""
    of_model = select(PredictionRun.run_id).where(PredictionRun.model == night.model)
    before = of_model.where(PredictionRun.started_at < night.started_at).order_by(PredictionRun.started_at.desc())
    large = select(PredictionDrift).where(PredictionDrift.model == night.model, PredictionDrift.level == "large")
    known = {
        row.feature
        for row in session.scalars(large.where(PredictionDrift.run_id == session.scalar(before.limit(1))))
    }  # fmt: skip
    now = session.scalars(large.where(PredictionDrift.run_id == night.run_id).order_by(PredictionDrift.psi.desc()))
    return [row for row in now if row.feature not in known]


def _incoming_drift(
    session: Session, name: str, night: PredictionRun, moved: list[PredictionDrift], links: Links
) -> Message:
    against = session.get_one(DatasetVersion, moved[0].against_digest)
    found = [
        f"{row.feature} of the newest {row.after_cases} pictures: PSI {row.psi:.2f}, KS {row.ks:.2f}" for row in moved
    ]
    old = f"{against.name}@{against.digest[:12]}"
    return messages.drift(name, f"What comes in for {night.model}", old, found, links.run(_PREDICTS, night.run_id))


def _no_news(session: Session, name: str, model: str, since: datetime, nights: int, links: Links) -> Message:
    runs = session.execute(
        select(Run.state, func.count())
        .where(Run.started_at > since, or_(Run.model == model, Run.state == "nothing_new"))
        .group_by(Run.state)
        .order_by(Run.state)
    )
    return messages.no_news(name, model, since, nights, [(state, times) for state, times in runs], links.page())


def _scored(session: Session, model_id: int, manifest: str | None) -> Scored | None:
    """The newest test figures of a model version, on this comparison manifest where there is one."""
    from femur_tasks.evaluation.intervals import bootstrap_mean

    found = newest_evaluation(session, model_id, manifest)
    if found is None or found.mean_dice is None:
        return None
    dices = select(EvaluationCase.dice).where(
        EvaluationCase.evaluation_id == found.id, EvaluationCase.dice.is_not(None)
    )
    values = [dice for dice in session.scalars(dices) if dice is not None]
    interval = bootstrap_mean(values, _CONFIDENCE, 0) if len(values) > 1 else None
    low, high = (interval.low, interval.high) if interval else (None, None)
    return Scored(found.cases, found.mean_dice, low, high, found.worst_dice)
