"""The page's charts, as Plotly figures. Colours of ink and grid come from the page, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import plotly.graph_objects as go

from femur_tasks.morning.history import History
from femur_tasks.morning.search import SearchFacts
from femur_tasks.morning.verdict import ComparedCase, SliceDifference
from femur_tasks.reports.facts import Curve

# Okabe and Ito (2008): apart under every common colour blindness, on white and on black
BLUE, ORANGE, GREEN, PURPLE, SKY, GREY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8c8c8c"
FAMILIES = {"baseline": GREY, "unet": BLUE, "tuned": ORANGE}
_SYMBOLS = {"baseline": "square", "unet": "diamond", "tuned": "circle"}
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, GREY)
DASHES = ("solid", "dash", "dot", "dashdot")
_BINS = 8


def forest(slices: Sequence[SliceDifference], margin: float | None) -> go.Figure:
    """Mean paired difference of each slice with its interval, zero and the margin drawn through."""
    names = [f"{short(one.name)} ({one.cases})" for one in slices]
    figure = go.Figure(
        go.Scatter(
            x=[one.mean for one in slices],
            y=names,
            mode="markers",
            marker={"size": 10, "color": BLUE},
            error_x={
                "array": [one.high - one.mean for one in slices],
                "arrayminus": [one.mean - one.low for one in slices],
                "thickness": 2,
                "color": BLUE,
            },
            hovertemplate="%{y}: %{x:+.4f}<extra></extra>",
        )
    )
    figure.add_vline(x=0, line_width=1.5)
    if margin is not None:
        figure.add_vline(x=-margin, line_width=1, line_dash="dot", line_color=ORANGE)
    figure.update_layout(
        xaxis_title="Dice, challenger minus champion",
        yaxis={"autorange": "reversed", "automargin": True},
        height=110 + 34 * len(slices),
    )
    return figure


def short(name: str) -> str:
    """A slice's name without the folders of a source."""
    kind, is_source, place = name.partition("source ")
    return f"source {place.rstrip('/').rpartition('/')[2]}" if is_source and not kind else name


def against(cases: Sequence[ComparedCase], challenger: str, champion: str) -> go.Figure:
    """Case against case: above the diagonal the challenger is better."""
    pairs = [case for case in cases if case.dice is not None and case.champion_dice is not None]
    figure = go.Figure()
    for name, colour, symbol, better in (
        ("challenger better", BLUE, "triangle-up", True), ("champion better or equal", ORANGE, "triangle-down", False),
    ):  # fmt: skip
        chosen = [case for case in pairs if (_gain(case) > 0) == better]
        figure.add_scatter(
            x=[case.champion_dice for case in chosen],
            y=[case.dice for case in chosen],
            text=[f"{case.case_id}: {_gain(case):+.4f}" for case in chosen],
            name=f"{name} ({len(chosen)})",
            mode="markers",
            marker={"size": 9, "color": colour, "symbol": symbol, "opacity": 0.85},
            hovertemplate="%{text}<extra></extra>",
        )
    values = [value for case in pairs for value in (case.dice, case.champion_dice) if value is not None]
    low, high = (min(values) - 0.01, max(values) + 0.01) if values else (0.0, 1.0)
    figure.add_shape(type="line", x0=low, y0=low, x1=high, y1=high, line={"width": 1.5})
    figure.update_layout(
        xaxis={"title": f"Dice of {champion}", "range": [low, high], "constrain": "domain"},
        yaxis={"title": f"Dice of {challenger}", "range": [low, high], "scaleanchor": "x", "constrain": "domain"},
        height=430,
    )
    return figure


def _gain(case: ComparedCase) -> float:
    return (case.dice or 0.0) - (case.champion_dice or 0.0)


def over_nights(past: History) -> go.Figure:
    """Test Dice of every version with its interval, and who was champion; what another metric scored is pale."""
    figure = go.Figure()
    scored = [version for version in past.versions if version.dice is not None]
    for family, is_earlier in dict.fromkeys((version.family, version.is_by_earlier_metric) for version in scored):
        mine = [one for one in scored if (one.family, one.is_by_earlier_metric) == (family, is_earlier)]
        figure.add_scatter(
            x=[version.created_at for version in mine],
            y=[version.dice for version in mine],
            text=[f"version {version.version}, {version.cases} cases, {version.metric}" for version in mine],
            name=f"{family}, earlier metric" if is_earlier else family,
            mode="markers",
            opacity=0.35 if is_earlier else 1,
            marker={
                "color": FAMILIES.get(family, GREEN),
                "symbol": [
                    _SYMBOLS.get(family, "circle") + ("" if version.was_champion else "-open") for version in mine
                ],
                "size": [12 if version.was_champion else 8 for version in mine],
            },
            error_y={
                "array": [(version.high or version.dice or 0) - (version.dice or 0) for version in mine],
                "arrayminus": [(version.dice or 0) - (version.low or version.dice or 0) for version in mine],
                "thickness": 1,
                "width": 3,
            },
            hovertemplate="%{text}: %{y:.4f}<br>%{x}<extra></extra>",
        )
    by_version = {version.version: version for version in past.versions}
    reign = [
        (datetime.fromisoformat(str(move["since"])), by_version[move["version"]])
        for move in reversed(past.moves)
        if move["version"] in by_version
    ]
    if reign:
        latest = max(version.created_at for version in past.versions)
        figure.add_scatter(
            x=[*(at for at, _ in reign), max(latest, reign[-1][0])],
            y=[*(version.dice for _, version in reign), reign[-1][1].dice],
            name="champion",
            mode="lines",
            line={"shape": "hv", "color": GREEN, "width": 2},
            hoverinfo="skip",
        )
    figure.update_layout(yaxis_title="mean test Dice", height=400)
    return figure


def curves(found: Sequence[Curve]) -> go.Figure:
    """Validation Dice by epoch, a line a fit or configuration; those of a group share a colour."""
    figure = go.Figure()
    groups = list(dict.fromkeys(curve.group for curve in found))
    for place, group in enumerate(groups):
        lines = [curve for curve in found if curve.group == group]
        figure.add_scatter(
            x=_joined([curve.epochs for curve in lines]),
            y=_joined([curve.val_dice for curve in lines]),
            name=group,
            mode="lines+markers" if len(lines) == 1 else "lines",
            line={"color": SERIES[place % len(SERIES)], "dash": DASHES[place % len(DASHES)], "width": 2},
            hovertemplate="epoch %{x}: %{y:.4f}<extra>" + group + "</extra>",
        )
    longest = max((curve.epochs[-1] for curve in found if curve.epochs), default=1)
    figure.update_layout(
        xaxis={"title": "epoch", "dtick": max(1, longest // 10)}, yaxis_title="validation Dice", height=330
    )
    return figure


def _joined(lines: Sequence[Sequence[float]]) -> list[float | None]:
    """Several lines as one trace, broken between them."""
    return [point for line in lines for point in (*line, None)][:-1]


def parallel(search: SearchFacts) -> go.Figure:
    """One line a configuration across its hyperparameters to its score; the better, the stronger its colour."""
    axes = [_axis(name, search) for name in search.dimensions]
    figure = go.Figure()
    scores = [trial.score or 0.0 for trial in search.trials]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    span = (high - low) or 1.0
    binned: dict[int, list[int]] = {}
    for index, score in enumerate(scores):
        binned.setdefault(min(_BINS - 1, int(_BINS * (score - low) / span)), []).append(index)
    places = [*range(len(axes) + 1), None]
    for level in sorted(binned):
        xs: list[float | None] = []
        ys: list[float | None] = []
        texts: list[str] = []
        for index in binned[level]:
            trial = search.trials[index]
            label = f"trial {trial.trial_id}, score {scores[index]:.4f}<br>" + "<br>".join(
                f"{name} {trial.hyperparameters.get(name)}" for name in search.dimensions
            )
            xs += places
            ys += [*(place(trial.hyperparameters.get(name)) for name, (place, _) in
                     zip(search.dimensions, axes, strict=True)), (scores[index] - low) / span, None]  # fmt: skip
            texts += [label] * len(places)
        bottom, top = low + span * level / _BINS, low + span * (level + 1) / _BINS
        figure.add_scatter(
            x=xs, y=ys, text=texts, hovertemplate="%{text}<extra></extra>", mode="lines",
            name=f"{bottom:.3f} to {top:.3f}",
            line={"color": ORANGE if level == _BINS - 1 else BLUE, "width": 1 + 2.5 * level / (_BINS - 1)},
            opacity=0.45 + 0.55 * level / (_BINS - 1),
        )  # fmt: skip
    for place, (_, ticks) in enumerate([*axes, (None, [(0.0, f"{low:.3f}"), (1.0, f"{high:.3f}")])]):
        figure.add_vline(x=place, line_width=1)
        for height, label in ticks:
            figure.add_annotation(x=place, y=height, text=label, showarrow=False, xshift=4, xanchor="left")
    names = [*(name.replace("_", " ") for name in search.dimensions), "score"]
    figure.update_layout(
        xaxis={
            "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False,
            "range": [-0.1, len(axes) + 0.4],
        },
        yaxis={"visible": False, "range": [-0.06, 1.06]},
        height=420,
        legend={"title": "score"},
    )  # fmt: skip
    return figure


def _axis(name: str, search: SearchFacts) -> tuple[Any, list[tuple[float, str]]]:
    """Where a value lies on its axis, from 0 to 1, and the labels beside it."""
    values = {trial.hyperparameters.get(name) for trial in search.trials}
    if name in search.logarithmic:
        logs = [math.log(value) for value in values] or [0.0]
        low, span = min(logs), (max(logs) - min(logs)) or 1.0
        ends = [(0.0, f"{math.exp(low):.2g}"), (1.0, f"{math.exp(low + span):.2g}")]
        return (lambda value: (math.log(value) - low) / span), ends
    ordered = sorted(values, key=lambda value: (isinstance(value, str), value))
    last = (len(ordered) - 1) or 1
    heights = {value: index / last for index, value in enumerate(ordered)}
    return heights.__getitem__, [(height, str(value)) for value, height in heights.items()]


def importance(search: SearchFacts) -> go.Figure:
    """Which hyperparameters tell good trials from the others."""
    figure = go.Figure(
        go.Bar(
            x=[share for _, share in search.importance],
            y=[name.replace("_", " ") for name, _ in search.importance],
            orientation="h",
            marker={"color": BLUE},
            hovertemplate="%{y}: %{x:.0%}<extra></extra>",
        )
    )
    figure.update_layout(
        xaxis={"title": "importance", "tickformat": ".0%"},
        yaxis={"autorange": "reversed", "automargin": True},
        height=90 + 34 * len(search.importance),
    )
    return figure


def rates(search: SearchFacts) -> go.Figure:
    """Learning rate against score, a point a configuration."""
    trials = [trial for trial in search.trials if "learning_rate" in trial.hyperparameters]
    figure = go.Figure(
        go.Scatter(
            x=[trial.hyperparameters["learning_rate"] for trial in trials],
            y=[trial.score for trial in trials],
            text=[f"trial {trial.trial_id}, {trial.to_epoch} epochs" for trial in trials],
            mode="markers",
            marker={"color": BLUE, "opacity": 0.8, "size": [6 + min(10, trial.to_epoch) for trial in trials]},
            hovertemplate="%{text}<br>rate %{x:.2g}, Dice %{y:.4f}<extra></extra>",
        )
    )
    ticks = [step * 10.0**power for power in range(-8, 1) for step in (1, 2, 5)]
    figure.update_layout(
        xaxis={
            "title": "learning rate", "type": "log", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks],
        },
        yaxis_title="validation Dice",
        height=330,
    )  # fmt: skip
    return figure


def cost(search: SearchFacts) -> go.Figure:
    """The best score against the device time that it had cost by then."""
    figure = go.Figure(
        go.Scatter(
            x=[seconds / 60 for seconds, _ in search.pace],
            y=[best for _, best in search.pace],
            mode="lines+markers",
            line={"shape": "hv", "color": GREEN, "width": 2},
            hovertemplate="%{x:.1f} min: %{y:.4f}<extra></extra>",
        )
    )
    figure.update_layout(xaxis_title="device time, minutes", yaxis_title="best validation Dice", height=330)
    return figure
