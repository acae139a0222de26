"""The report of an ingest: facts in, one self-contained HTML page out. Nothing here reads a file or a database."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from femur_tasks.dataset.drift import LARGE_PSI, MAX_KS_P, SOME_PSI, DriftRow
from femur_tasks.dataset.problems import CODES, SPLITS, Problem, Weight
from femur_tasks.reports import page
from femur_tasks.reports.histograms import Histogram, histogram
from femur_tasks.reports.ingest_facts import IngestReport
from femur_tasks.reports.sheets import Sheet, pair_sheets

FEATURES: Final[Mapping[str, str]] = {
    "intensity_mean": "Mean grey value",
    "intensity_sd": "Spread of the grey values",
    "height_px": "Height, px",
    "width_px": "Width, px",
    "spacing_y_mm": "Distance of rows, mm",
    "femur_area_pct": "Femur, % of the picture",
    "femur_x_pct": "Femur's centre from the left, %",
    "femur_y_pct": "Femur's centre from the top, %",
}
"""Titles; a feature without one goes by its name."""
_STATE_TONES: Final = {"ingested": "good", "refused": "bad"}
_TONES: Final = {"error": "bad", "lifted error": "calm", "warning": "warn"}  # in the order of the page
_SHOWN: Final = 50
_SHOWN_PAIRS: Final = 24
_LONGEST_TEXT: Final = 300


@dataclass(frozen=True)
class Group:
    """The problems of one code.

    Attributes:
        word: a key of `_TONES`.
        count: of all its problems; `more` of them are not shown.
        rows: what was found and expected, and the cases of which both are true.
    """

    code: str
    word: str
    todo: str
    count: int
    more: int
    rows: tuple[tuple[str, str, str], ...]


def render(report: IngestReport, sheets: Sequence[Sheet]) -> str:
    """The report as one HTML page without scripts or links to anything outside itself.

    Args:
        sheets: of the report's cards.
    """
    pairs = report.pairs[:_SHOWN_PAIRS]
    histograms = _histograms(report.features)
    return page.render(
        "ingest.html",
        report=report,
        headline=headline(report),
        name=report.dataset,
        state=report.state,
        tone=_STATE_TONES.get(report.state, "calm"),
        facts_shown=_facts(report),
        period=page.period(report.started_at, report.finished_at),
        groups=groups(report.problems),
        tones=_TONES,
        sheets=sheets,
        pairs=pairs,
        pair_sheets=list(pair_sheets(pairs)),
        histograms=histograms,
        histogram_splits=list(dict.fromkeys(split for panel in histograms for split in panel.lines)),
        drift=[(_title(name), list(rows)) for name, rows in groupby(report.drift, key=_feature)],
        some_psi=SOME_PSI,
        large_psi=LARGE_PSI,
        max_ks_p=MAX_KS_P,
    )


def headline(report: IngestReport) -> str:
    """What came of it and how much is wrong, in one sentence."""
    cases = _count(sum(report.counts.values()), "case")
    version = f"{report.dataset}@{report.digest[:12]}" if report.digest else report.dataset
    refused = any(problem.is_error for problem in report.problems)
    what = {
        "ingested": f"{version} is ingested with {cases}",
        "known": f"Nothing new: {version} holds these {cases} already",
        "refused": f"The data for {report.dataset} is refused",
        "dry run": f"The data for {report.dataset} would be {'refused' if refused else f'ingested with {cases}'}",
    }[report.state]
    return f"{what}: {_counts(report.problems)}"


def groups(problems: Iterable[Problem]) -> list[Group]:
    """The problems by code: errors first, then lifted ones, then warnings, the most frequent first."""
    by_code: dict[str, list[Problem]] = {}
    for problem in problems:
        by_code.setdefault(problem.code, []).append(problem)
    order = list(_TONES)
    return sorted(map(_group, by_code.values()), key=lambda group: (order.index(group.word), -group.count))


def _group(problems: Sequence[Problem]) -> Group:
    first, shown = problems[0], problems[:_SHOWN]
    cases: dict[tuple[str, str], list[str]] = {}
    for problem in shown:
        cases.setdefault((_cut(problem.found), _cut(problem.expected)), []).append(_cut(problem.case_id))
    rows = tuple((found, expected, ", ".join(ids)) for (found, expected), ids in cases.items())
    return Group(first.code, _word(first), first.todo, len(problems), len(problems) - len(shown), rows)


def _word(problem: Problem) -> str:
    if problem.is_error:
        return "error"
    return "warning" if CODES[problem.code].weight is Weight.WARNING else "lifted error"


def _counts(problems: Iterable[Problem]) -> str:
    words = [_word(problem) for problem in problems]
    counted = [_count(words.count(word), word) for word in _TONES if word in words]
    return " and ".join([", ".join(counted[:-1]), counted[-1]] if counted[1:] else counted) or "no problems"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _facts(report: IngestReport) -> dict[str, object]:
    classes = [f"{number} {name}" for number, name in (report.classes or {}).items()]
    facts = {
        "dataset": report.dataset,
        "source": _cut(report.source),
        "digest": report.digest,
        "layout": report.layout,
        "classes": _cut(", ".join(classes)),
        "taken for femur": _cut(report.femur_class),
        "shard size, px": report.size,
        "cases found": report.cases_found,
        "cases taken": ", ".join(f"{report.counts[split]} {split}" for split in SPLITS if split in report.counts),
        "lifted by hand": ", ".join(report.allowed),
    }
    return {name: fact for name, fact in facts.items() if fact not in (None, "")}


def _histograms(features: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Histogram]:
    names = dict.fromkeys((*FEATURES, *(name for values in features.values() for name in values)))
    panels = []
    for name in names:
        finite = {split: list(filter(math.isfinite, values.get(name, ()))) for split, values in features.items()}
        kept = {split: values for split, values in finite.items() if values}
        if kept:
            panels.append(histogram(_title(name), kept))
    return panels


def _title(feature: str) -> str:
    return FEATURES.get(feature, feature.replace("_", " "))


def _feature(row: DriftRow) -> str:
    return row.feature


def _cut(text: str) -> str:
    """A text of bounded length: names of hostile sources have none."""
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}\u2026"
