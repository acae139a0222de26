"""The charts of what comes in: pictures a night, why they were flagged, how alike they are, and drift."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import plotly.graph_objects as go

from femur_page.figures import BLUE, DASHES, GREEN, GREY, ORANGE, PURPLE, SERIES
from femur_tasks.dataset.drift import LARGE_PSI, SOME_PSI
from femur_tasks.morning.incoming import FeatureDrift, Found, IncomingNight

UNLIKE = "unlike_training"
_DAY_MS, _NAMED = 86_400_000, 14


def a_night(nights: Sequence[IncomingNight]) -> go.Figure:
    """Pictures of each night: those that need no look, those that do, and those without a mask."""
    ended = [night for night in nights if night.pictures is not None]
    figure = go.Figure()
    for name, colour, pattern, counts in (
        ("no flag", BLUE, "", [_sound(night) for night in ended]),
        ("flagged", ORANGE, "/", [night.flagged or 0 for night in ended]),
        ("refused", PURPLE, "x", [night.refused or 0 for night in ended]),
    ):
        figure.add_bar(
            x=_days(ended),
            y=counts,
            name=name,
            marker={"color": colour, "pattern": {"shape": pattern, "fillmode": "replace"}},
            hovertemplate="%{x|%d %b}: %{y}<extra>" + name + "</extra>",
        )
    figure.update_layout(barmode="stack", xaxis=_day_axis(_days(ended)), yaxis={"title": "pictures"}, height=300)
    return figure


def _sound(night: IncomingNight) -> int:
    return (night.pictures or 0) - (night.flagged or 0) - (night.refused or 0)


def _days(nights: Sequence[IncomingNight]) -> list[date]:
    return [night.started_at.date() for night in nights]


def _day_axis(days: Sequence[date]) -> dict[str, object]:
    """An axis of days: of few each is named, and never an hour."""
    few = bool(days) and (max(days) - min(days)).days < _NAMED
    return {"type": "date", "tickformat": "%d %b", "dtick": _DAY_MS if few else None}


def shares(nights: Sequence[IncomingNight]) -> go.Figure:
    """In what share of each night's pictures a flag was set, a line a flag that ever was."""
    ended = [night for night in nights if night.pictures]
    seen = [flag for flag in (ended[0].counts if ended else ()) if any(night.counts.get(flag) for night in ended)]
    figure = go.Figure()
    for place, flag in enumerate(seen):
        figure.add_scatter(
            x=_days(ended),
            y=[night.counts.get(flag, 0) / (night.pictures or 1) for night in ended],
            name=flag.replace("_", " "),
            mode="lines+markers",
            line={"color": SERIES[place % len(SERIES)], "dash": DASHES[place % len(DASHES)], "width": 2},
            hovertemplate="%{x|%d %b}: %{y:.1%}<extra>" + flag.replace("_", " ") + "</extra>",
        )
    figure.update_layout(
        xaxis=_day_axis(_days(ended)),
        yaxis={"title": "share of the pictures", "tickformat": ".0%", "rangemode": "tozero"},
        height=300,
        showlegend=True,
    )
    return figure


def likeness(found: Sequence[Found]) -> go.Figure:
    """How alike the training cases each picture is, over time."""
    figure = go.Figure()
    for name, colour, symbol, is_unlike in (
        ("like the training cases", BLUE, "circle", False), ("flagged as unlike", ORANGE, "x", True),
    ):  # fmt: skip
        chosen = [one for one in found if (UNLIKE in one.flags) == is_unlike]
        figure.add_scatter(
            x=[one.settled_at for one in chosen],
            y=[one.likeness for one in chosen],
            text=[one.name for one in chosen],
            name=f"{name} ({len(chosen)})",
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 8, "opacity": 0.8},
            hovertemplate="%{text}<br>%{y:.3f}, %{x}<extra></extra>",
        )
    days = [one.settled_at.date() for one in found if one.settled_at]
    figure.update_layout(xaxis=_day_axis(days), yaxis_title="likeness", height=320)
    return figure


def drift(rows: Sequence[FeatureDrift]) -> go.Figure:
    """How far each feature lies from the training data, with the borders of some and large."""
    known = [row for row in rows if row.psi is not None]
    colours = {"large": ORANGE, "some": GREEN}
    figure = go.Figure(
        go.Bar(
            x=[row.psi for row in known],
            y=[row.feature.replace("_", " ").replace(" pct", ", %") for row in known],
            orientation="h",
            marker={"color": [colours.get(row.level or "", GREY) for row in known]},
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    for border, dash in ((SOME_PSI, "dot"), (LARGE_PSI, "dash")):
        figure.add_vline(x=border, line_width=1, line_dash=dash)
    figure.update_layout(
        xaxis={"title": "population stability index", "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "automargin": True},
        height=110 + 30 * len(known),
    )
    return figure
