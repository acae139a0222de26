"""The report that every run leaves, whatever came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks.dataset.problems import Problem
from femur_tasks.errors import FemurError
from femur_tasks.evaluation.intervals import PAIRED_T, Interval, bootstrap_mean
from femur_tasks.registry.gate import Reason, Verdict
from femur_tasks.registry.queries import find_run, newest_evaluation, newest_verdict, reasons_of
from femur_tasks.registry.tables import (
    ComparisonManifest,
    DatasetCase,
    DatasetVersion,
    EvaluationCase,
    FitEpoch,
    ModelVersion,
    Promotion,
    Run,
    Trial,
    TrialEpoch,
    VerdictRow,
)
from femur_tasks.reports.facts import (
    CONFIDENCE,
    Candidate,
    Comparison,
    Curve,
    DatasetFacts,
    RunFacts,
    RunReport,
    Scores,
    TrialFacts,
    WorstCase,
)
from femur_tasks.reports.run import render
from femur_tasks.steps.context import Context
from femur_tasks.steps.worst_cases import verdict_pictures

WORST_CASES = 10
_SYNTHETIC = "SYN_"


def write_report(context: Context, run_id: str) -> str:
    """Write the report of a run as it stands, and give its key; the same facts give the same key.

    Raises:
        NotFound: there is no such run.
        Unreachable: the store or the registry does not answer.
    """
    with context.registry.reading() as session:
        report = run_report(session, run_id)
        verdict = newest_verdict(session, run_id)
    if verdict is not None:
        try:
            pictures = verdict_pictures(context, verdict.id, [case.case_id for case in report.worst_cases])
        except FemurError as err:
            report = replace(report, pictures_note=err.what)
        else:
            cases = tuple(replace(case, overlay_png=pictures.get(case.case_id)) for case in report.worst_cases)
            report = replace(report, worst_cases=cases)
    return context.store.put(render(report).encode(), "reports")


def run_report(session: Session, run_id: str) -> RunReport:
    """Everything that the report of a run shows, but for the pictures of its worst cases.

    Raises:
        NotFound: there is no such run.
    """
    run = find_run(session, run_id)
    verdict = newest_verdict(session, run_id)
    trials = session.scalars(
        select(Trial).where(Trial.run_id == run_id, Trial.search == "tuned").order_by(Trial.trial_id)
    ).all()
    return RunReport(
        run=RunFacts(
            run_id=run.run_id,
            trigger=run.trigger,
            model=run.model,
            state=run.state,
            detail=run.detail,
            seed=run.seed,
            started_at=run.started_at,
            finished_at=run.finished_at,
            parameters=run.parameters,
            versions=run.versions,
        ),
        dataset=dataset_facts(session, run.dataset_digest) if run.dataset_digest else None,
        comparison=_comparison(session, verdict) if verdict else None,
        candidates=_candidates(session, run, verdict),
        curves=family_curves(session, run_id),
        trials=tuple(
            TrialFacts(
                trial_id=trial.trial_id,
                bracket=trial.bracket,
                rung=trial.rung,
                from_epoch=trial.from_epoch,
                to_epoch=trial.to_epoch,
                hyperparameters=trial.hyperparameters,
                score=trial.score,
                state=trial.state,
                failures=trial.failures,
                detail=trial.detail,
            )
            for trial in trials
        ),
        trial_curves=trial_curves(session, run_id),
        worst_cases=_worst_cases(session, verdict) if verdict else (),
    )


def dataset_facts(session: Session, digest: str) -> DatasetFacts:
    """What reports and cards say of a dataset version."""
    version = session.get_one(DatasetVersion, digest)
    cases = session.scalars(select(DatasetCase).where(DatasetCase.digest == digest).order_by(DatasetCase.case_id)).all()
    return DatasetFacts(
        name=version.name,
        digest=digest,
        source=version.source,
        size=version.size,
        femur_class=version.femur_class or "",
        train_cases=version.train_cases,
        val_cases=version.val_cases,
        test_cases=version.test_cases,
        synthetic_cases=sum(case.case_id.startswith(_SYNTHETIC) for case in cases),
        created_at=version.created_at,
        warnings=tuple(
            Problem.from_dict(problem)
            for found in (version.problems, *(case.problems for case in cases))
            for problem in found
        ),
    )


def _comparison(session: Session, verdict: VerdictRow) -> Comparison:
    challenger = session.get_one(ModelVersion, verdict.challenger_id)
    champion = session.get(ModelVersion, verdict.champion_id) if verdict.champion_id else None
    manifest = session.get_one(ComparisonManifest, verdict.manifest_digest)
    ours = _dices(session, challenger.id, manifest.digest)
    theirs = _dices(session, champion.id, manifest.digest) if champion else {}
    differences = {case_id: dice - theirs[case_id] for case_id, dice in ours.items() if case_id in theirs}
    mean, low, high = verdict.mean_difference, verdict.difference_low, verdict.difference_high
    interval = None
    if mean is not None and low is not None and high is not None:
        interval = Interval(low=low, high=high, mean=mean, n=len(differences), method=PAIRED_T)
    promotion = session.scalars(select(Promotion).where(Promotion.verdict_id == verdict.id)).first()
    return Comparison(
        challenger=challenger.label,
        champion=champion.label if champion else None,
        verdict=Verdict(
            outcome=verdict.outcome,
            reasons=tuple(
                Reason(row.code, row.passed, row.value, row.threshold, row.sentence)
                for row in reasons_of(session, verdict.id)
            ),
            difference=interval,
        ),
        policy=verdict.policy,
        cases=len(manifest.cases),
        excluded=len(manifest.excluded),
        differences=differences,
        promoted_by=promotion.actor if promotion else "",
    )


def _candidates(session: Session, run: Run, verdict: VerdictRow | None) -> tuple[Candidate, ...]:
    """The run's model versions, best validation Dice first, and below them the champion that was compared with."""
    rows = list(
        session.scalars(
            select(ModelVersion).where(ModelVersion.run_id == run.run_id).order_by(ModelVersion.val_dice.desc())
        )
    )
    roles: dict[int | None, str] = {}
    if verdict:
        roles = {verdict.champion_id: "champion", verdict.challenger_id: "challenger"}
        champion = session.get(ModelVersion, verdict.champion_id) if verdict.champion_id else None
        if champion and champion not in rows:
            rows.append(champion)
    return tuple(
        Candidate(
            label=row.label,
            role=roles.get(row.id, ""),
            family=row.family,
            val_dice=row.val_dice,
            size=row.size,
            epochs=row.epochs,
            hyperparameters=row.hyperparameters,
            test=_scores(session, row.id, verdict.manifest_digest if verdict else None, run.seed),
        )
        for row in rows
    )


def _scores(session: Session, model_id: int, manifest: str | None, seed: int) -> Scores | None:
    evaluation = newest_evaluation(session, model_id, manifest)
    if evaluation is None:
        return None
    dices = list(_dices(session, model_id, evaluation.manifest_digest).values())
    return Scores(
        cases=evaluation.cases,
        mean_dice=evaluation.mean_dice,
        interval=bootstrap_mean(dices, CONFIDENCE, seed) if len(dices) > 1 else None,
        worst_dice=evaluation.worst_dice,
        mean_hd95_pct=evaluation.mean_hd95_pct,
    )


def _cases(session: Session, model_id: int, manifest: str) -> list[tuple[EvaluationCase, float]]:
    """The evaluated cases that have a usable Dice, with it, worst first."""
    evaluation = newest_evaluation(session, model_id, manifest)
    if evaluation is None:
        return []
    rows = session.scalars(
        select(EvaluationCase)
        .where(EvaluationCase.evaluation_id == evaluation.id)
        .order_by(EvaluationCase.dice, EvaluationCase.case_id)
    )
    return [(row, row.dice) for row in rows if row.dice is not None and math.isfinite(row.dice)]


def _dices(session: Session, model_id: int, manifest: str) -> dict[str, float]:
    return {row.case_id: dice for row, dice in _cases(session, model_id, manifest)}


def _worst_cases(session: Session, verdict: VerdictRow) -> tuple[WorstCase, ...]:
    worst = _cases(session, verdict.challenger_id, verdict.manifest_digest)[:WORST_CASES]
    return tuple(WorstCase(row.case_id, dice, row.hd95_pct, None) for row, dice in worst)


def family_curves(session: Session, run_id: str) -> tuple[Curve, ...]:
    """One curve a family that is fitted."""
    rows = session.scalars(select(FitEpoch).where(FitEpoch.run_id == run_id).order_by(FitEpoch.epoch))
    epochs: dict[str, list[FitEpoch]] = {}
    for row in rows:
        epochs.setdefault(row.family, []).append(row)
    return tuple(_curve(family, epochs[family]) for family in sorted(epochs))


def trial_curves(session: Session, run_id: str) -> tuple[Curve, ...]:
    """One curve a configuration: that of its last trial, behind those of the trials that it goes on from."""
    mine = (Trial.run_id == run_id, Trial.search == "tuned")
    trials = session.scalars(select(Trial).where(*mine).order_by(Trial.trial_id)).all()
    rows = session.scalars(
        select(TrialEpoch).where(TrialEpoch.run_id == run_id, TrialEpoch.search == "tuned").order_by(TrialEpoch.epoch)
    )
    epochs: dict[str, list[TrialEpoch]] = {}
    for row in rows:
        epochs.setdefault(row.trial_id, []).append(row)
    by_id = {trial.trial_id: trial for trial in trials}
    went_on = {trial.parent_id for trial in trials}
    curves = []
    for last in sorted(trials, key=lambda trial: -trial.bracket):
        trial: Trial | None = last if last.trial_id not in went_on else None
        points: list[TrialEpoch] = []
        while trial is not None:
            points = epochs.get(trial.trial_id, []) + points
            trial = by_id.get(trial.parent_id or "")
        if points:
            curves.append(_curve(f"bracket {last.bracket}", points))
    return tuple(curves)


def _curve(group: str, rows: Sequence[FitEpoch] | Sequence[TrialEpoch]) -> Curve:
    return Curve(
        group=group,
        epochs=tuple(row.epoch for row in rows),
        loss=tuple(row.loss for row in rows),
        val_dice=tuple(row.val_dice for row in rows),
    )
