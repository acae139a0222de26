"""The report of a run: facts in, one self-contained HTML page out. Nothing here reads a database or a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from femur_tasks.dataset.problems import Problem
from femur_tasks.reports import page
from femur_tasks.reports.charts import curves_svg, differences_svg
from femur_tasks.reports.facts import RunReport, Scores

_TONES: Final = {"promoted": "good", "failed": "bad", "refused": "bad"}
_PRINTED_TRIALS: Final = 24
"""So many of the best trials are printed, that the report stays within six pages; on the screen are all."""


def render(report: RunReport) -> str:
    """The report as one HTML page without scripts or links to anything outside itself."""
    return page.render(
        "run.html",
        report=report,
        headline=headline(report),
        name=report.run.run_id,
        state=report.run.state,
        tone=_TONES.get(report.run.state, "calm"),
        evidence=evidence(report),
        period=page.period(report.run.started_at, report.run.finished_at),
        rules=_rules(report),
        warnings=_warnings(report),
        trials=sorted(report.trials, key=lambda trial: -1.0 if trial.score is None else trial.score, reverse=True),
        printed_trials=_PRINTED_TRIALS,
        trained=_names(candidate.hyperparameters for candidate in report.candidates),
        searched=_names(trial.hyperparameters for trial in report.trials),
        differences_svg=differences_svg(report.comparison) if report.comparison else "",
        curves_svg=curves_svg("families", report.curves),
        trial_curves_svg=curves_svg("search", report.trial_curves),
    )


def headline(report: RunReport) -> str:
    """What came of the run, in one sentence."""
    run, compared = report.run, report.comparison
    if run.state == "nothing_new":
        return f"Nothing new to train for {run.model}"
    if run.state == "running":
        return f"The retrain of {run.model} is still running"
    if compared is None:
        return f"The retrain of {run.model} {run.state} without a verdict"
    if run.state == "promoted":
        place = f"replaces {compared.champion} as" if compared.champion else "is the first"
        return f"{compared.challenger} {place} champion of {run.model}"
    stayed = f"{compared.champion} stayed champion" if compared.champion else f"{run.model} had no champion yet"
    if run.state == "stale_champion":
        return f"{compared.challenger} is not promoted: the champion moved while it was compared"
    if run.state == "failed":
        return f"The retrain of {run.model} failed after its verdict to {compared.verdict.outcome}"
    return f"{compared.challenger} is {run.state}, {stayed}"


def evidence(report: RunReport) -> str:
    """The challenger's scores against the champion's in one sentence; empty before a verdict."""
    compared = report.comparison
    if compared is None:
        return ""
    scored = {candidate.label: candidate.test for candidate in report.candidates if candidate.test}
    challenger = scored.get(compared.challenger)
    if challenger is None:
        return ""
    sentence = f"Mean Dice {_with_interval(challenger)}"
    champion = scored.get(compared.champion or "")
    if champion:
        sentence += f" against {_with_interval(champion)} of {compared.champion}"
    sentence += f" on {challenger.cases} test cases"
    difference = compared.verdict.difference
    if difference:
        sentence += f", paired difference {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    return f"{sentence}."


def _with_interval(scores: Scores) -> str:
    interval = f" [{scores.interval.low:.4f}, {scores.interval.high:.4f}]" if scores.interval else ""
    return page.dice(scores.mean_dice) + interval


def _rules(report: RunReport) -> list[tuple[str, str, str, str, bool]]:
    """Code, sentence, value, threshold and passed of each rule; counts as whole numbers."""
    rows = []
    for reason in report.comparison.verdict.reasons if report.comparison else ():
        numbers = [number for number in (reason.value, reason.threshold) if number is not None]
        text = "{:.0f}" if all(float(number).is_integer() for number in numbers) else "{:.4f}"
        value, threshold = (
            page.NOTHING if number is None else text.format(number) for number in (reason.value, reason.threshold)
        )
        rows.append((reason.code, reason.sentence, value, threshold, reason.passed))
    return rows


def _warnings(report: RunReport) -> list[tuple[str, list[Problem]]]:
    by_code: dict[str, list[Problem]] = {}
    for problem in report.dataset.warnings if report.dataset else ():
        by_code.setdefault(problem.code, []).append(problem)
    return sorted(by_code.items(), key=lambda item: -len(item[1]))


def _names(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every name once, in the order of first sight."""
    return list(dict.fromkeys(name for values in settings for name in values))
