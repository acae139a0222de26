"""What people ask the registry: the views and the run tables, as plain rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, func, select, text, true
from sqlalchemy.orm import Session

from femur_tasks.errors import NotFound
from femur_tasks.registry.tables import (
    Champion,
    ComparisonManifest,
    Evaluation,
    EvaluationCase,
    ModelCard,
    ModelVersion,
    Run,
    VerdictReason,
    VerdictRow,
)
from femur_tasks.registry.tables.base import Utc

Row = dict[str, Any]
_TIMES = ("since", "until", "champion_since", "created_at", "scored_at", "started_at", "finished_at")
"""Columns of the views that hold times: SQLite gives them as text."""


def model_registry(
    session: Session, model: str | None = None, limit: int | None = None, run_id: str | None = None
) -> list[Row]:
    """The view `model_registry`, newest first."""
    return _view(session, "model_registry", {"model": model, "run_id": run_id}, "model desc, version desc", limit)


def champion_history(session: Session, model: str | None = None, limit: int | None = None) -> list[Row]:
    """The view `champion_history`, newest first: who was champion from when to when, by whom and why."""
    return _view(session, "champion_history", {"model": model}, "model, promotion_id desc", limit)


def leaderboard(session: Session, model: str, limit: int) -> list[Row]:
    """The view `leaderboard`, best first, on the cases and by the metric that this model was judged with last."""
    newest = session.execute(
        select(ComparisonManifest.cases_digest, Evaluation.metric)
        .join(VerdictRow, VerdictRow.manifest_digest == ComparisonManifest.digest)
        .join(Run, Run.run_id == VerdictRow.run_id)
        .join(
            Evaluation,
            and_(
                Evaluation.model_version_id == VerdictRow.challenger_id,
                Evaluation.manifest_digest == VerdictRow.manifest_digest,
            ),
        )
        .where(Run.model == model)
        .order_by(VerdictRow.id.desc(), Evaluation.id.desc())
        .limit(1)
    ).first()
    if newest is None:
        return []
    wanted = {"model": model, "cases_digest": newest.cases_digest, "metric": newest.metric}
    return _view(session, "leaderboard", wanted, "place, version desc", limit)


def trial_board(session: Session, run_id: str, limit: int) -> list[Row]:
    """The view `trial_board` of a run, the best score first."""
    return _view(session, "trial_board", {"run_id": run_id}, "score is null, score desc, trial_id", limit)


def listed(
    session: Session, view: str, wanted: Mapping[str, Any], order: str, limit: int, offset: int
) -> tuple[list[Row], int]:
    """Some rows of a view, and how many there are.

    Args:
        view, order: ours, never a caller's.
        wanted: values by column; None does not narrow it down.
    """
    where, given = _where(wanted)
    total = session.scalar(text(f"select count(*) from {view} {where}"), given)  # noqa: S608 - names are ours
    return _view(session, view, wanted, order, limit, offset), int(total or 0)


def champion_at(session: Session, model: str, at: datetime) -> Row | None:
    """Who was champion at a time, with verdict and actor; None before the first."""
    statement = text(
        "select * from champion_history where model = :model and since <= :at "
        "order by since desc, promotion_id desc limit 1"
    ).bindparams(bindparam("at", type_=Utc()))
    row = session.execute(statement, {"model": model, "at": at}).mappings().first()
    return {key: _plain(value) for key, value in row.items()} if row else None


def champions(session: Session, model: str | None = None) -> list[Row]:
    """The champion of every model, or of one.

    Raises:
        NotFound: the model that was asked for has no champion.
    """
    found = session.execute(
        select(Champion.model, ModelVersion.version)
        .join(ModelVersion, ModelVersion.id == Champion.model_version_id)
        .where(Champion.model == model if model else true())
        .order_by(Champion.model)
    )
    rows = [row for name, version in found for row in _registered(session, name, version)]
    if model and not rows:
        raise NotFound(f"Expected a champion of model {model}. Received: none.", "See `femur registry list`.")
    return rows


def model_version(session: Session, name: str) -> Row:
    """Everything about `MODEL:VERSION`: its registry row, hyperparameters, verdicts with reasons, worst cases.

    Raises:
        NotFound: no such model version.
    """
    found = find_model_version(session, name)
    (row,) = _registered(session, found.name, found.version)
    verdicts = session.scalars(
        select(VerdictRow).where(VerdictRow.challenger_id == found.id).order_by(VerdictRow.id.desc())
    ).all()
    return {
        **row,
        "hyperparameters": found.hyperparameters,
        "size": found.size,
        "epochs": found.epochs,
        "artefact_bytes": found.artefact_bytes,
        "verdicts": [
            {"verdict_id": verdict.id, "outcome": verdict.outcome, "reasons": reasons(session, verdict.id)}
            for verdict in verdicts
        ],
        "worst_cases": _worst_cases(session, found.id),
    }


def card_key(session: Session, name: str) -> str | None:
    """Where the card of `MODEL:VERSION` lies as JSON; None where it has none.

    Raises:
        NotFound: no such model version.
    """
    card = session.get(ModelCard, find_model_version(session, name).id)
    return card.json_key if card else None


def find_model_version(session: Session, name: str) -> ModelVersion:
    """The model version called `MODEL:VERSION`.

    Raises:
        NotFound: there is none.
    """
    model, _, digits = name.partition(":")
    version = int(digits) if digits.isascii() and digits.isdigit() else -1
    found = session.scalars(select(ModelVersion).where(ModelVersion.name == model, ModelVersion.version == version))
    if (row := found.first()) is None:
        raise NotFound(f"Expected MODEL:VERSION of one that is there. Received: {name}.", "See `femur registry list`.")
    return row


def newest_evaluation(session: Session, model_version_id: int, manifest: str | None = None) -> Evaluation | None:
    """The newest test scores of a model version, on one comparison manifest where it is named; else None."""
    mine = [Evaluation.model_version_id == model_version_id, Evaluation.split == "test"]
    if manifest:
        mine.append(Evaluation.manifest_digest == manifest)
    return session.scalars(select(Evaluation).where(*mine).order_by(Evaluation.id.desc()).limit(1)).first()


def newest_verdict(session: Session, run_id: str) -> VerdictRow | None:
    """What the gate said last in a run, None before it was asked."""
    return session.scalars(select(VerdictRow).where(VerdictRow.run_id == run_id).order_by(VerdictRow.id.desc())).first()


def reasons_of(session: Session, verdict_id: int) -> Sequence[VerdictReason]:
    """The rules of a verdict in order."""
    return session.scalars(
        select(VerdictReason).where(VerdictReason.verdict_id == verdict_id).order_by(VerdictReason.position)
    ).all()


def reasons(session: Session, verdict_id: int) -> list[Row]:
    """The same as plain rows."""
    return [
        {
            "code": row.code,
            "passed": row.passed,
            "value": row.value,
            "threshold": row.threshold,
            "sentence": row.sentence,
        }
        for row in reasons_of(session, verdict_id)
    ]


def _worst_cases(session: Session, model_version_id: int) -> list[Row]:
    newest = newest_evaluation(session, model_version_id)
    rows = session.scalars(
        select(EvaluationCase)
        .where(EvaluationCase.evaluation_id == (newest.id if newest else None))
        .order_by(EvaluationCase.dice, EvaluationCase.case_id)
        .limit(5)
    )
    return [{"case_id": row.case_id, "dice": row.dice, "hd95_px": row.hd95_px, "flag": row.flag} for row in rows]


def runs(
    session: Session, limit: int, offset: int = 0, model: str | None = None, run_id: str | None = None
) -> list[Row]:
    """The newest runs, the last started first, or the one of this id."""
    wanted = [column == value for column, value in ((Run.model, model), (Run.run_id, run_id)) if value is not None]
    rows = session.scalars(select(Run).where(*wanted).order_by(Run.started_at.desc()).limit(limit).offset(offset))
    return [
        {
            "run_id": row.run_id,
            "state": row.state,
            "trigger": row.trigger,
            "model": row.model,
            "dataset": row.parameters.get("dataset"),
            "budget": row.parameters.get("budget"),
            "started_at": row.started_at.isoformat(),
            "finished_at": row.finished_at.isoformat() if row.finished_at else None,
            "detail": row.detail,
            "has_report": row.report_key is not None,
        }
        for row in rows
    ]


def newest_run_id(session: Session) -> str | None:
    """The run that started last; one that found nothing new only where there is no other."""
    newest = select(Run.run_id).order_by(Run.state == "nothing_new", Run.started_at.desc()).limit(1)
    return session.scalar(newest)


def find_run(session: Session, run_id: str) -> Run:
    """The run of this id.

    Raises:
        NotFound: there is none.
    """
    run = session.get(Run, run_id)
    if run is None:
        what = f"Expected a run. Received: {run_id}, which the registry does not hold."
        raise NotFound(what, "See `femur runs list`.")
    return run


def count_runs(session: Session, model: str | None = None) -> int:
    """How many runs there are."""
    return session.scalar(select(func.count()).select_from(Run).where(Run.model == model if model else true())) or 0


def _registered(session: Session, model: str, version: int) -> list[Row]:
    return _view(session, "model_registry", {"model": model, "version": version}, "version", None)


def _view(
    session: Session, view: str, wanted: Mapping[str, Any], order: str, limit: int | None, offset: int = 0
) -> list[Row]:
    where, given = _where(wanted)
    statement = f"select * from {view} {where} order by {order}"  # noqa: S608 - names are ours
    if limit is not None:
        statement = f"{statement} limit :limit offset :offset"
        given |= {"limit": limit, "offset": offset}
    found = session.execute(text(statement).columns(**dict.fromkeys(_TIMES, Utc())), given)
    return [{key: _plain(value) for key, value in row._mapping.items()} for row in found]


def _where(wanted: Mapping[str, Any]) -> tuple[str, Row]:
    given = {name: value for name, value in wanted.items() if value is not None}
    return f"where {' and '.join(f'{name} = :{name}' for name in given)}" if given else "", given


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
