"""A verdict in full: the report's facts, the difference in each slice of the cases, and case against case."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.errors import NotFound
from femur_tasks.evaluation.intervals import paired_interval
from femur_tasks.registry.evidence import Evidence
from femur_tasks.registry.queries import newest_verdict
from femur_tasks.registry.tables import ModelVersion, Run, VerdictPicture, VerdictRow
from femur_tasks.reports.facts import RunReport
from femur_tasks.reports.run import evidence as sentence_of
from femur_tasks.reports.run import headline
from femur_tasks.steps.evidence import cases_of, evidence
from femur_tasks.steps.report import run_report

WHOLE = "all test cases"
WORST = 10


@dataclass(frozen=True)
class SliceDifference:
    """Mean paired difference in Dice over a group of cases, challenger minus champion; the interval is of 95 %."""

    name: str
    cases: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class ComparedCase:
    """One test case; `champion_dice` is None without a champion, `pictured` says that overlays of it are kept."""

    case_id: str
    dice: float | None
    champion_dice: float | None
    hd95_pct: float | None
    pictured: bool
    champion_pictured: bool


@dataclass(frozen=True)
class VerdictFacts:
    """What the gate said in one run, and everything that it stands on.

    Attributes:
        headline, sentence: what came of it, and the scores, in a sentence each.
        report: the facts of the run's report.
        slices: all cases first; empty without a champion.
        cases: worst of the challenger first.
    """

    verdict_id: int
    run_id: str
    model: str
    headline: str
    sentence: str
    report: RunReport
    slices: tuple[SliceDifference, ...]
    cases: tuple[ComparedCase, ...]

    @property
    def worst(self) -> tuple[ComparedCase, ...]:
        """The challenger's worst cases."""
        return self.cases[:WORST]


def newest_of(session: Session, model: str) -> str | None:
    """The run of the newest verdict on a version of a model; None before the first."""
    return session.scalars(
        select(VerdictRow.run_id)
        .join(Run, Run.run_id == VerdictRow.run_id)
        .where(Run.model == model)
        .order_by(VerdictRow.id.desc())
        .limit(1)
    ).first()


def verdict_facts(session: Session, run_id: str) -> VerdictFacts:
    """The newest verdict of a run.

    Raises:
        NotFound: there is no such run, or it has no verdict.
    """
    report = run_report(session, run_id)
    verdict = newest_verdict(session, run_id)
    if verdict is None:
        raise NotFound(f"Expected a run with a verdict. Received: {run_id}, {report.run.detail or report.run.state}.")
    ours = evidence(session, verdict.challenger_id, verdict.manifest_digest)
    theirs = evidence(session, verdict.champion_id, verdict.manifest_digest)
    pictured = {
        row.case_id: row
        for row in session.scalars(select(VerdictPicture).where(VerdictPicture.verdict_id == verdict.id))
    }
    cases = [
        ComparedCase(
            case_id=case_id,
            dice=score.dice,
            champion_dice=theirs.cases[case_id].dice if theirs and case_id in theirs.cases else None,
            hd95_pct=score.hd95_pct,
            pictured=case_id in pictured,
            champion_pictured=case_id in pictured and pictured[case_id].champion_key is not None,
        )
        for case_id, score in (ours.cases.items() if ours else ())
    ]
    return VerdictFacts(
        verdict_id=verdict.id,
        run_id=run_id,
        model=session.get_one(ModelVersion, verdict.challenger_id).name,
        headline=headline(report),
        sentence=sentence_of(report),
        report=report,
        slices=_slices(session, verdict, ours, theirs),
        cases=tuple(sorted(cases, key=lambda case: (case.dice is not None, case.dice, case.case_id))),
    )


def picture_key(session: Session, verdict_id: int, case_id: str, whose: str) -> str:
    """Where a stored overlay lies.

    Args:
        whose: challenger or champion.

    Raises:
        NotFound: none is kept.
    """
    row = session.get(VerdictPicture, (verdict_id, case_id))
    key = (row.challenger_key if whose == "challenger" else row.champion_key) if row else None
    if key is None:
        raise NotFound(f"Expected a picture of case {case_id} by the {whose}. Received: none in verdict {verdict_id}.")
    return key


def _slices(
    session: Session, verdict: VerdictRow, ours: Evidence | None, theirs: Evidence | None
) -> tuple[SliceDifference, ...]:
    if ours is None or theirs is None:
        return ()
    cases = cases_of(session, verdict.manifest_digest, verdict.champion_id)
    found = []
    for name, ids in {WHOLE: cases.compared, **cases.slices}.items():
        found += _difference(name, [_gain(ours, theirs, case_id, "dice") for case_id in ids])
    for side in ("left", "right"):
        found += _difference(
            f"{side} femur", [_gain(ours, theirs, case_id, f"dice_{side}") for case_id in cases.compared]
        )
    return tuple(found)


def _gain(ours: Evidence, theirs: Evidence, case_id: str, metric: str) -> float | None:
    mine, other = (getattr(of.cases.get(case_id), metric, None) for of in (ours, theirs))
    return None if mine is None or other is None else float(mine - other)


def _difference(name: str, gains: list[float | None]) -> list[SliceDifference]:
    there = [gain for gain in gains if gain is not None]
    if len(there) < 2:
        return []
    interval = paired_interval(there)
    return [SliceDifference(name, len(there), interval.mean, interval.low, interval.high)]
