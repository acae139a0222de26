"""What came in from outside: pictures a night, how many a person should look at and why, and how alike they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from sqlalchemy import ColumnElement, String, cast, func, select
from sqlalchemy.orm import Session

from femur_tasks.errors import NotFound
from femur_tasks.registry.tables import (
    DatasetVersion,
    IncomingPicture,
    ModelVersion,
    PredictionDrift,
    PredictionRate,
    PredictionRun,
)
from femur_tasks.serving.findings import FLAGS

NIGHTS = 60
PICTURES = 60
SCORES = 300
REFUSED = "refused"


@dataclass(frozen=True)
class IncomingNight:
    """One night's predictions of one model.

    Attributes:
        version: NAME:VERSION, the champion of that night.
        refused: pictures without a mask.
        flagged: pictures with a mask and at least one flag; both are None until the night has ended.
        counts: pictures by flag, each flag there, also at 0; `refused` among them. Empty until the night has ended.
    """

    run_id: str
    model: str
    version: str
    started_at: datetime
    finished_at: datetime | None
    pictures: int | None
    refused: int | None
    flagged: int | None
    median_ms: float | None
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Found:
    """One picture and what was found in it.

    Attributes:
        key, etag: its name and content, by which the registry knows it.
        flags: names of `serving.findings.FLAGS`.
        likeness: how alike the hips are to the training cases; None where nothing can be said.
        pictured: whether an overlay of it is kept.
    """

    key: str
    etag: str
    model: str
    run_id: str | None
    state: str
    problem: str
    flags: tuple[str, ...]
    likeness: float | None
    settled_at: datetime | None
    pictured: bool

    @property
    def name(self) -> str:
        """Of the file, without its folders."""
        return PurePosixPath(self.key).name


@dataclass(frozen=True)
class FeatureDrift:
    """How far a feature of the newest pictures lies from the training data; figures are None with too few pictures."""

    feature: str
    psi: float | None
    ks: float | None
    level: str | None
    cases: int


@dataclass(frozen=True)
class Incoming:
    """What came in for one model.

    Attributes:
        waiting: pictures that no night has predicted yet.
        nights: the newest ones, oldest first.
        night: the one that is looked at; None before the first.
        to_look_at: its pictures that were refused or flagged, the refused first; at most `PICTURES` of them.
        scores: the newest pictures that have a likeness, newest first.
        drift: of that night, what moved most first; `against` is NAME@DIGEST of the training data, empty without any.
    """

    model: str
    waiting: int
    nights: tuple[IncomingNight, ...]
    night: IncomingNight | None
    to_look_at: tuple[Found, ...]
    scores: tuple[Found, ...]
    drift: tuple[FeatureDrift, ...]
    against: str


def incoming(session: Session, model: str, run_id: str | None = None) -> Incoming:
    """The newest nights of a model, and one of them in full: the newest where none is named.

    Raises:
        NotFound: that night predicted nothing for this model.
    """
    there, _ = nights(session, NIGHTS, model=model)
    night = there[0] if there else None
    if run_id is not None:
        night = find_night(session, model, run_id)
    waits = select(func.count()).where(
        IncomingPicture.run_id.is_(None), IncomingPicture.state == "waiting", IncomingPicture.model == model
    )
    drifted, against = drift_of(session, model, night.run_id) if night else ((), "")
    return Incoming(
        model=model,
        waiting=session.scalar(waits) or 0,
        nights=tuple(reversed(there)),
        night=night,
        to_look_at=_to_look_at(session, model, night.run_id) if night else (),
        scores=_scores(session, model, [one.run_id for one in there]),
        drift=drifted,
        against=against,
    )


def nights(session: Session, limit: int, offset: int = 0, model: str | None = None) -> tuple[list[IncomingNight], int]:
    """Some nights, the newest first, and how many there are."""
    wanted = [] if model is None else [PredictionRun.model == model]
    order = PredictionRun.started_at.desc(), PredictionRun.run_id, PredictionRun.model
    rows = session.scalars(select(PredictionRun).where(*wanted).order_by(*order).limit(limit).offset(offset)).all()
    total = session.scalar(select(func.count()).select_from(PredictionRun).where(*wanted))
    return _nights(session, rows), total or 0


def find_night(session: Session, model: str, run_id: str) -> IncomingNight:
    """One night of one model.

    Raises:
        NotFound: there is none.
    """
    row = session.get(PredictionRun, (run_id, model))
    if row is None:
        raise NotFound(f"Expected a night that predicted for {model}. Received: {run_id}, which did not.")
    return _nights(session, [row])[0]


def pictures(
    session: Session, limit: int, offset: int = 0, *, model: str | None = None, run_id: str | None = None,
    state: str | None = None, flag: str | None = None,
) -> tuple[list[Found], int]:  # fmt: skip
    """Some pictures, the last settled first and those that wait at the end, and how many there are."""
    given = (
        (IncomingPicture.model, model), (IncomingPicture.run_id, run_id), (IncomingPicture.state, state),
    )  # fmt: skip
    wanted: list[ColumnElement[bool]] = [column == value for column, value in given if value is not None]
    if flag is not None:
        wanted.append(cast(IncomingPicture.flags, String).contains(f'"{flag}"', autoescape=True))
    order = IncomingPicture.settled_at.desc().nulls_last(), IncomingPicture.key, IncomingPicture.etag
    rows = session.scalars(select(IncomingPicture).where(*wanted).order_by(*order).limit(limit).offset(offset))
    total = session.scalar(select(func.count()).select_from(IncomingPicture).where(*wanted))
    return [_found(row) for row in rows], total or 0


def drift_of(session: Session, model: str, run_id: str) -> tuple[tuple[FeatureDrift, ...], str]:
    """How the newest pictures lay that night, what moved most first, and NAME@DIGEST of what they lie against."""
    rows = session.scalars(
        select(PredictionDrift)
        .where(PredictionDrift.run_id == run_id, PredictionDrift.model == model)
        .order_by(PredictionDrift.psi.desc().nulls_last(), PredictionDrift.feature)
    ).all()
    if not rows:
        return (), ""
    version = session.get_one(DatasetVersion, rows[0].against_digest)
    return tuple(
        FeatureDrift(row.feature, row.psi, row.ks, row.level, row.after_cases) for row in rows
    ), f"{version.name}@{version.digest}"


def overlay_key(session: Session, key: str, etag: str) -> str:
    """Where the overlay of a picture lies.

    Raises:
        NotFound: there is no such picture, or it has none.
    """
    row = session.get(IncomingPicture, (key, etag))
    if row is None or row.overlay_key is None:
        raise NotFound("Expected an incoming picture with an overlay. Received: one without.")
    return row.overlay_key


def _nights(session: Session, rows: Sequence[PredictionRun]) -> list[IncomingNight]:
    shown = {row.run_id for row in rows}
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for rate in session.scalars(select(PredictionRate).where(PredictionRate.run_id.in_(shown))):
        counts.setdefault((rate.run_id, rate.model), {})[rate.flag] = rate.pictures
    labels = {
        version.id: version.label
        for version in session.scalars(
            select(ModelVersion).where(ModelVersion.id.in_({row.model_version_id for row in rows}))
        )
    }
    return [
        IncomingNight(
            run_id=row.run_id,
            model=row.model,
            version=labels[row.model_version_id],
            started_at=row.started_at,
            finished_at=row.finished_at,
            pictures=row.pictures,
            refused=row.refused,
            flagged=row.flagged,
            median_ms=row.median_ms,
            counts=_in_order(counts.get((row.run_id, row.model), {})),
        )
        for row in rows
    ]


def _in_order(counts: Mapping[str, int]) -> dict[str, int]:
    return {flag: counts[flag] for flag in (REFUSED, *FLAGS) if flag in counts}


def _to_look_at(session: Session, model: str, run_id: str) -> tuple[Found, ...]:
    odd = (IncomingPicture.state == REFUSED) | (cast(IncomingPicture.flags, String) != "[]")
    rows = session.scalars(
        select(IncomingPicture)
        .where(IncomingPicture.run_id == run_id, IncomingPicture.model == model, odd)
        .order_by(IncomingPicture.state.desc(), IncomingPicture.key, IncomingPicture.etag)
        .limit(PICTURES)
    )
    return tuple(_found(row) for row in rows)


def _scores(session: Session, model: str, run_ids: Sequence[str]) -> tuple[Found, ...]:
    rows = session.scalars(
        select(IncomingPicture)
        .where(
            IncomingPicture.run_id.in_(run_ids), IncomingPicture.model == model, IncomingPicture.likeness.is_not(None)
        )
        .order_by(IncomingPicture.settled_at.desc(), IncomingPicture.key)
        .limit(SCORES)
    )
    return tuple(_found(row) for row in rows)


def _found(row: IncomingPicture) -> Found:
    return Found(
        key=row.key,
        etag=row.etag,
        model=row.model,
        run_id=row.run_id,
        state=row.state,
        problem=row.problem,
        flags=tuple(row.flags),
        likeness=row.likeness,
        settled_at=row.settled_at,
        pictured=row.overlay_key is not None,
    )
