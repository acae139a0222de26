"""The report of a run: facts in, one self-contained HTML page out. Nothing here reads a database or a model."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from femur_tasks.dataset.problems import Problem
from femur_tasks.evaluation.charts import Curve, curves_svg, differences_svg
from femur_tasks.evaluation.intervals import Interval
from femur_tasks.registry.gate import Verdict


@dataclass(frozen=True)
class RunFacts:
    """The run itself; `detail` is its outcome in words, `finished_at` is None while it runs."""

    run_id: str
    trigger: str
    model: str
    state: str
    detail: str
    seed: int
    started_at: datetime
    finished_at: datetime | None
    parameters: Mapping[str, Any]
    versions: Mapping[str, Any]


@dataclass(frozen=True)
class DatasetFacts:
    """The dataset version; `synthetic_cases` counts those made by the phantom."""

    name: str
    digest: str
    source: str
    size: int
    femur_label: int
    train_cases: int
    val_cases: int
    test_cases: int
    synthetic_cases: int
    created_at: datetime
    warnings: tuple[Problem, ...]

    @property
    def label(self) -> str:
        """NAME@DIGEST with as many digits as people read."""
        return f"{self.name}@{self.digest[:12]}"


@dataclass(frozen=True)
class Scores:
    """Test scores of one model version.

    Attributes:
        interval: of the mean Dice, by bootstrap; None with fewer than two usable cases.
        mean_hd95_pct: per cent of the picture's height; None where no case has one.
    """

    cases: int
    mean_dice: float | None
    interval: Interval | None
    worst_dice: float | None
    mean_hd95_pct: float | None


@dataclass(frozen=True)
class Candidate:
    """A model version of the run, or the champion that it met.

    Attributes:
        label: NAME:VERSION.
        role: `challenger`, `champion` or empty.
        epochs: the epoch whose weights were kept.
        test: None where it was not scored on the comparison manifest.
    """

    label: str
    role: str
    family: str
    val_dice: float
    size: int
    epochs: int
    hyperparameters: Mapping[str, Any]
    test: Scores | None


@dataclass(frozen=True)
class Comparison:
    """What the gate said, of whom, and on what.

    Attributes:
        champion: NAME:VERSION of the champion of that moment; None before the first.
        cases, excluded: test cases compared on, and those left out because a model had trained on them.
        differences: Dice of the challenger minus the champion's, by case id.
        promoted_by: who moved the champion pointer; empty where it did not move.
    """

    challenger: str
    champion: str | None
    verdict: Verdict
    policy: Mapping[str, Any]
    cases: int
    excluded: int
    differences: Mapping[str, float]
    promoted_by: str


@dataclass(frozen=True)
class TrialFacts:
    """One trial; it trained the epochs after `from_epoch` up to `to_epoch`."""

    trial_id: str
    bracket: int
    rung: int
    from_epoch: int
    to_epoch: int
    hyperparameters: Mapping[str, Any]
    score: float | None
    state: str
    attempts: int
    detail: str


@dataclass(frozen=True)
class WorstCase:
    """One of the challenger's worst test cases; `overlay_png` is None where no picture could be made."""

    case_id: str
    dice: float
    hd95_pct: float | None
    overlay_png: bytes | None


@dataclass(frozen=True)
class RunReport:
    """Everything that a report shows; what a run never reached is None or empty.

    Attributes:
        confidence: level of every interval, such as 0.95.
        trial_curves: one a configuration, over all its rungs.
        pictures_note: why the worst cases have no overlays; empty where they have.
    """

    run: RunFacts
    confidence: float = 0.95
    dataset: DatasetFacts | None = None
    comparison: Comparison | None = None
    candidates: tuple[Candidate, ...] = ()
    curves: tuple[Curve, ...] = ()
    trials: tuple[TrialFacts, ...] = ()
    trial_curves: tuple[Curve, ...] = ()
    worst_cases: tuple[WorstCase, ...] = ()
    pictures_note: str = ""


def render(report: RunReport) -> str:
    """The report as one HTML page without scripts or links to anything outside itself."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "value": _value,
        "moment": _moment,
        "dice": _dice,
        "data_uri": lambda png: f"data:image/png;base64,{base64.b64encode(png).decode()}",
    }
    return environment.get_template("report.html").render(
        report=report,
        headline=headline(report),
        evidence=evidence(report),
        period=_period(report.run),
        rules=_rules(report),
        warnings=_warnings(report),
        trials=sorted(report.trials, key=lambda trial: -1.0 if trial.score is None else trial.score, reverse=True),
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
    return _dice(scores.mean_dice) + interval


def _rules(report: RunReport) -> list[tuple[str, str, str, str, bool]]:
    """Code, sentence, value, threshold and passed of each rule; counts as whole numbers."""
    rows = []
    for reason in report.comparison.verdict.reasons if report.comparison else ():
        numbers = [number for number in (reason.value, reason.threshold) if number is not None]
        text = "{:.0f}" if all(float(number).is_integer() for number in numbers) else "{:.4f}"
        value, threshold = (
            _NOTHING if number is None else text.format(number) for number in (reason.value, reason.threshold)
        )
        rows.append((reason.code, reason.sentence, value, threshold, reason.passed))
    return rows


def _warnings(report: RunReport) -> list[tuple[str, list[Problem]]]:
    by_code: dict[str, list[Problem]] = {}
    for problem in report.dataset.warnings if report.dataset else ():
        by_code.setdefault(problem.code, []).append(problem)
    return sorted(by_code.items(), key=lambda item: -len(item[1]))


_NOTHING: Final = "\u2013"


def _names(settings: Iterable[Mapping[str, Any]]) -> list[str]:
    """Every name once, in the order of first sight."""
    return list(dict.fromkeys(name for values in settings for name in values))


def _dice(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.4f}"


def _value(value: Any) -> str:
    """A parameter as people write it."""
    if value is None or value == "":
        return _NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(_value(item) for item in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _moment(at: datetime | None) -> str:
    return f"{at.astimezone(UTC):%d %B %Y, %H:%M} UTC".lstrip("0") if at else _NOTHING


def _period(run: RunFacts) -> str:
    """When it ran; the day once where start and end share it."""
    start, end = _moment(run.started_at), _moment(run.finished_at)
    if run.finished_at is None:
        return f"Since {start}"
    day, _, _ = start.partition(",")
    return start if start == end else f"{start.removesuffix(' UTC')} to {end.removeprefix(f'{day}, ')}"
