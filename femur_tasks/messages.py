"""Messages to people: what happened, why, and where to look, in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args
from urllib.parse import quote

Kind = Literal["promotion", "refusal", "failure", "no_news", "drift", "incoming", "stack"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_MOST_SENTENCES: Final = 3
_MOST_CHARS: Final = 400
"""Of one sentence: an error may hold a whole page."""


@dataclass(frozen=True)
class Message:
    """One thing that happened, as people read it.

    Attributes:
        event: names what happened; nobody is told twice of one event.
        text: a few lines, the last ones links.
    """

    event: str
    kind: Kind
    title: str
    text: str


@dataclass(frozen=True)
class Links:
    """Where to look; `airflow_url` is empty where there is none, and so are the links then."""

    airflow_url: str

    def page(self) -> list[str]:
        return [f"Page: {self.airflow_url.rstrip('/')}/femur/"] if self.airflow_url else []

    def run(self, dag: str, run_id: str) -> list[str]:
        """To Airflow's page of a run; a run of the CLI has none."""
        if not self.airflow_url or not dag:
            return self.page()
        return [f"Run: {self.airflow_url.rstrip('/')}/dags/{dag}/runs/{quote(run_id, safe='')}", *self.page()]


@dataclass(frozen=True)
class Scored:
    """Test figures of a model version: mean Dice with the ends of its interval, and the worst case's.

    `low` and `high` are None with fewer than two cases.
    """

    cases: int
    dice: float
    low: float | None
    high: float | None
    worst: float | None

    def sentence(self, label: str) -> str:
        interval = "" if self.low is None or self.high is None else f" [{self.low:.4f}, {self.high:.4f}]"
        worst = "" if self.worst is None else f", worst {self.worst:.4f}"
        return f"Test Dice of {label}: {self.dice:.4f}{interval} on {self.cases} cases{worst}."


def promotion(
    event: str,
    kind: str,
    label: str,
    before: str,
    actor: str,
    why: str,
    scored: Scored | None,
    gain: tuple[float, float, float] | None,
    links: Sequence[str],
) -> Message:
    """The champion moved.

    Args:
        kind: of the move: promote, rollback or override.
        before: the champion until then, empty before the first.
        why: the verdict's sentence, or a person's reason.
        gain: mean paired difference in Dice to the one before, with the ends of its interval.
    """
    title = f"{label} is champion again" if kind == "rollback" else f"{label} is champion"
    moved = {"rollback": "Rolled back", "override": "Promoted against the gate"}.get(kind, "Promoted")
    lines = [f"{moved} by {actor}{f', before {before}' if before else ', the first of its model'}.", _cut(why)]
    if scored:
        lines.append(scored.sentence(label))
    if gain:
        lines.append(f"Gain over {before}: {gain[0]:+.4f} [{gain[1]:+.4f}, {gain[2]:+.4f}].")
    return Message(event, "promotion", title, _text(lines, links))


def refusal(
    event: str, challenger: str, champion: str, why: Sequence[str], scored: Scored | None, links: Sequence[str]
) -> Message:
    """A run ended without a new champion: the gate refused, a person declined, or the champion moved meanwhile.

    Args:
        why: a sentence each, the gate's first.
    """
    stays = f", {champion} stays champion" if champion else ", there is no champion yet"
    lines = _some(why)
    if scored:
        lines.append(scored.sentence(challenger))
    return Message(event, "refusal", f"{challenger} refused{stays}", _text(lines, links))


def refused_ingest(
    event: str, dataset: str, source: str, problems: Sequence[tuple[str, int]], links: Sequence[str]
) -> Message:
    """A source was refused.

    Args:
        problems: code and number of each kind of error.
    """
    found = ", ".join(f"{times} x {code}" for code, times in problems)
    lines = [f"Nothing of {dataset} changed. Source: {source}.", f"Errors: {found}."]
    return Message(event, "refusal", f"A version of {dataset} was refused", _text(lines, links))


def failure(event: str, what: str, why: str, links: Sequence[str]) -> Message:
    """A run, or a task of one, ended without an outcome."""
    return Message(event, "failure", f"{what} failed", _text([_cut(why)], links))


def drift(event: str, dataset: str, against: str, found: Sequence[str], links: Sequence[str]) -> Message:
    """New cases do not look like those that the champion was trained on.

    Args:
        found: a sentence a feature.
    """
    lines = [f"Against {against}, which the champion was trained on:", *_some(found)]
    return Message(event, "drift", f"{dataset} has drifted", _text(lines, links))


def incoming(
    event: str, model: str, version: str, pictures: int, counts: Sequence[tuple[str, int]], odd: int,
    links: Sequence[str],
) -> Message:  # fmt: skip
    """Some of a night's incoming pictures were refused or flagged.

    Args:
        version: the champion that predicted them.
        counts: flag, or `refused`, and number of the pictures that have it.
        odd: pictures that were refused or have a flag.
    """
    found = ", ".join(f"{flag} {times} ({times / pictures:.0%})" for flag, times in counts)
    lines = [f"By {version}: {found}.", "Their overlays are on the page, under Incoming."]
    return Message(event, "incoming", f"{model}: {odd} of {pictures} pictures need a look", _text(lines, links))


def no_news(
    event: str, model: str, since: datetime, nights: int, runs: Sequence[tuple[str, int]], links: Sequence[str]
) -> Message:
    """No run of a model came to an outcome for some nights.

    Args:
        since: when the last one did, or when its dataset came.
        runs: state and number of the runs since then.
    """
    ran = ", ".join(f"{times} x {state}" for state, times in runs) or "none: is the DAG `retrain` paused?"
    lines = [f"The last was on {since:%Y-%m-%d}. Runs since then: {ran}."]
    return Message(event, "no_news", f"{model}: no verdict for {nights} nights", _text(lines, links))


def part_down(event: str, part: str, how: str, todo: str, links: Sequence[str]) -> Message:
    """A part of the stack does not work.

    Args:
        how: what is known of it, such as "ended 3 times".
    """
    return Message(event, "stack", f"{part} {how}", _text([todo], links))


def _some(sentences: Sequence[str]) -> list[str]:
    more = len(sentences) - _MOST_SENTENCES
    shown = [f"- {_cut(sentence)}" for sentence in sentences[:_MOST_SENTENCES]]
    return [*shown, *([f"- and {more} more"] if more > 0 else [])]


def _cut(sentence: str) -> str:
    line = " ".join(sentence.split())
    return line if len(line) <= _MOST_CHARS else f"{line[:_MOST_CHARS]} …"


def _text(lines: Sequence[str], links: Sequence[str]) -> str:
    return "\n".join([*lines, *links])
