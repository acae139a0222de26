"""The reports' charts: inline SVG that follows the page's light and dark colours."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from femur_tasks.reports.facts import Comparison, Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib knows no CSS variables: it draws in these stand-ins, which the page's light and dark colours replace
_INK, _GRID = "#000001", "#000002"
_SERIES: Final = tuple(f"#00001{number}" for number in range(6))
_VARIABLES: Final = {
    _INK: "var(--ink)",
    _GRID: "var(--line)",
    **{stand_in: f"var(--series-{number})" for number, stand_in in enumerate(_SERIES)},
}
_DASHES: Final = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)))
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "femur",  # the same facts give the same bytes
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}
_WIDTH_INCH = 9.0


def _svg(name: str, alt: str, height_inch: float, draw: Callable[[Figure], None]) -> str:
    """An inline SVG whose text stays text, with ids of its own and the page's colours."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    unnamed = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCH, height_inch), layout="constrained")
        draw(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata=unnamed)
    body = re.sub(r"^.*?<svg[^>]*>", "", buffer.getvalue(), count=1, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r"#0000[01]\d", lambda found: _VARIABLES.get(found.group(), found.group()), body)
    box = f"0 0 {_WIDTH_INCH * 72:g} {height_inch * 72:g}"
    return f'<svg viewBox="{box}" role="img" aria-label="{html.escape(alt)}">{body}'


def curves_svg(name: str, curves: Sequence[Curve]) -> str:
    """Validation Dice and training loss against epochs, side by side; empty without curves."""
    if not curves:
        return ""
    groups = list(dict.fromkeys(curve.group for curve in curves))
    best = {group: max(max(c.val_dice) for c in curves if c.group == group) for group in groups}
    alt = "Best validation Dice: " + ", ".join(f"{group} {dice:.4f}" for group, dice in best.items())

    def draw(figure: Figure) -> None:
        dice_axes, loss_axes = figure.subplots(1, 2)
        for axes, title in ((dice_axes, "Validation Dice"), (loss_axes, "Training loss")):
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
        for curve in curves:
            number = groups.index(curve.group) % len(_SERIES)
            alone = len(curves) == len(groups)
            look: dict[str, Any] = {
                "color": _SERIES[number],
                "linestyle": _DASHES[number],
                "linewidth": 1.8 if alone else 1.0,
                "alpha": 1.0 if alone else 0.75,
                "marker": "o" if len(curve.epochs) == 1 else "",
                "markersize": 3,
            }
            dice_axes.plot(curve.epochs, curve.val_dice, **look)
            loss_axes.plot(curve.epochs, curve.loss, **look)
        for number, group in enumerate(groups):
            count = sum(curve.group == group for curve in curves)
            label = group if count == 1 else f"{group} ({count} configurations)"
            number %= len(_SERIES)
            dice_axes.plot([], [], color=_SERIES[number], linestyle=_DASHES[number], linewidth=1.8, label=label)
        dice_axes.legend(loc="lower right")

    return _svg(name, alt, 3.1, draw)


def differences_svg(compared: Comparison) -> str:
    """Each case's difference as a dot, in order, under the interval of their mean; empty without a champion."""
    difference = compared.verdict.difference
    if difference is None or not compared.differences:
        return ""
    ordered = sorted(compared.differences.items(), key=lambda item: item[1])
    gains = sum(value > 0 for _, value in ordered)
    alt = (
        f"{compared.challenger} is better on {gains} of {len(ordered)} cases; "
        f"mean {difference.mean:+.4f}, interval {difference.low:+.4f} to {difference.high:+.4f}"
    )

    def draw(figure: Figure) -> None:
        axes: Axes = figure.subplots()
        axes.axhspan(difference.low, difference.high, color=_SERIES[2], alpha=0.22, linewidth=0, label="interval")
        axes.axhline(difference.mean, color=_SERIES[2], linewidth=1.6, label=f"mean {difference.mean:+.4f}")
        axes.axhline(0, color=_INK, linewidth=1)
        for sign, marker, series, label in ((1, "^", 0, "challenger better"), (-1, "v", 1, "champion better or equal")):
            chosen = [(i, value) for i, (_, value) in enumerate(ordered, 1) if (value > 0) == (sign > 0)]
            if chosen:
                ranks, values = zip(*chosen, strict=True)
                axes.plot(ranks, values, color=_SERIES[series], marker=marker, linestyle="", markersize=5, label=label)
        for index, place in ((0, "left"), (-1, "right")):
            case_id, value = ordered[index]
            rank = 1 if index == 0 else len(ordered)
            offset = (8 if index == 0 else -8, -3)
            axes.annotate(case_id, (rank, value), xytext=offset, textcoords="offset points", ha=place)
        axes.set_ylabel("Dice, challenger minus champion")
        axes.set_xlabel("test cases, from worst to best for the challenger")
        axes.grid(visible=False, axis="x")
        axes.legend(loc="upper left", ncols=2)
        axes.margins(y=0.18)

    return _svg("differences", alt, 2.9, draw)
