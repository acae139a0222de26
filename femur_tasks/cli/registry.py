"""`femur registry`: models, champions and history."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from femur_tasks.cli.show import AsJson, err, out, print_json, print_table, show_reasons, show_registry, text, when
from femur_tasks.errors import FemurError

if TYPE_CHECKING:
    from femur_tasks.registry.database import Registry

app = typer.Typer(no_args_is_help=True)
ModelOption = Annotated[str | None, typer.Option("--model", help="Only this model.")]
Kind = Literal["onnx", "weights", "card"]
Limit = Annotated[int, typer.Option(min=1, help="At most so many rows.")]
_EMPTY = "No model version yet. `femur retrain` makes some."
_VACANT = "No champion yet. `femur retrain` promotes the first that passes the gate."


@app.callback()
def registry() -> None:
    """Ask the registry: models, champions, history.

    The views model_registry, leaderboard and champion_history say the same in SQL.

    Examples:

      femur registry champion
      femur registry show femur:3
      femur registry list --json
    """


@app.command("list")
def list_versions(model: ModelOption = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List model versions with Dice, dataset, verdict and status, the newest first."""
    from femur_tasks.registry import queries

    with _registry().reading() as session:
        rows = queries.model_registry(session, model, limit)
    print_json(rows) if as_json else show_registry(rows, _EMPTY)


@app.command()
def leaderboard(
    model: Annotated[str, typer.Option(help="Whose.")] = "femur", limit: Limit = 20, as_json: AsJson = False
) -> None:
    """The best model versions on the test cases of the newest verdict."""
    from femur_tasks.registry import queries

    with _registry().reading() as session:
        rows = queries.leaderboard(session, model, limit)
    if as_json:
        print_json(rows)
        return
    shown = [
        (
            str(row["place"]), f"{row['model']}:{row['version']}", row["family"], text(row["test_dice"]),
            text(row["test_worst_dice"]), f"{row['artefact_bytes'] / 1e6:.1f}", f"{row['latency_ms'] or 0:.0f}",
        )
        for row in rows
    ]  # fmt: skip
    columns = ("place", "version", "family", "mean Dice", "worst", "MB", "ms a picture")
    print_table("Leaderboard", columns, shown, "No version was judged yet. `femur retrain` trains and judges some.")


@app.command()
def champion(
    model: ModelOption = None,
    at: Annotated[
        datetime | None, typer.Option(help="Who was champion at this time (UTC); femur unless --model says else.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Who is champion, or was at a time, and since when."""
    from femur_tasks.registry import queries

    with _registry().reading() as session:
        if at is not None:
            moved = queries.champion_at(session, model or "femur", at.replace(tzinfo=at.tzinfo or UTC))
            _show_history([moved] if moved else [], as_json)
            return
        rows = queries.champions(session, model)
    print_json(rows) if as_json else show_registry(rows, _VACANT)


@app.command()
def history(model: ModelOption = None, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Who was champion from when to when, by whom and why."""
    from femur_tasks.registry import queries

    with _registry().reading() as session:
        rows = queries.champion_history(session, model, limit)
    _show_history(rows, as_json)


def _show_history(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print_json(rows)
        return
    shown = [
        (
            f"{row['model']}:{row['version']}",
            when(row["since"]),
            when(row["until"]) or "now",
            row["kind"],
            row["actor"],
            row["reason"],
        )
        for row in rows
    ]
    print_table("Champion history", ("champion", "since", "until", "kind", "actor", "reason"), shown, _VACANT)


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="MODEL:VERSION", help="Such as femur:3.")], as_json: AsJson = False
) -> None:
    """Everything about one model version: its card, figures, hyperparameters, verdicts with reasons, worst cases."""
    from femur_tasks.registry import queries
    from femur_tasks.steps.cards import stored_card
    from femur_tasks.steps.context import open_context

    with _registry().reading() as session:
        row = queries.model_version(session, name)
        card_key = queries.card_key(session, name)
    if as_json:
        print_json(row)
        return
    if card_key:
        try:
            _show_card(stored_card(open_context(), card_key))
        except FemurError as silent:
            err.print(f"Its card can't be read: {silent.what}", highlight=False, markup=False)
    nested = ("verdicts", "worst_cases", "hyperparameters")
    print_table(name, ("field", "value"), [(key, text(value)) for key, value in row.items() if key not in nested])
    print_table(
        "Hyperparameters",
        ("name", "value"),
        [(key, f"{v:g}" if isinstance(v, float) else text(v)) for key, v in row["hyperparameters"].items()],
    )
    for verdict in row["verdicts"]:
        show_reasons(f"Verdict {verdict['verdict_id']}: {verdict['outcome']}", verdict["reasons"])
    worst = [(case["case_id"], text(case["dice"]), text(case["hd95_px"])) for case in row["worst_cases"]]
    print_table("Worst test cases", ("case", "Dice", "HD95 px"), worst)


def _show_card(card: dict[str, Any]) -> None:
    out.print(f"[bold]{card['label']}[/], {card['family']}: {card['intended_use']}", highlight=False)
    for limit in card["limits"]:
        out.print(f"- {limit}", highlight=False, markup=False)
    parts = [{"name": "all test cases", **card}, *card["slices"]]
    rows = [(part["name"], str(part["cases"]), text(part["mean_dice"]), _interval(part["interval"])) for part in parts]
    print_table("Test Dice by slice", ("slice", "cases", "mean", "95 %"), rows)


def _interval(found: dict[str, float] | None) -> str:
    return f"{found['low']:.4f} to {found['high']:.4f}" if found else ""


@app.command()
def download(
    name: Annotated[str, typer.Argument(metavar="MODEL:VERSION", help="Such as femur:3.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    kind: Annotated[Kind, typer.Option("--format", help="ONNX file, weights, or model card.")] = "onnx",
) -> None:
    """Write a model version's ONNX file, weights or card to a file, proven by signature and digest.

    Examples:

      femur registry download femur:3 --out femur.onnx
      femur registry download femur:3 --format card --out card.html
    """
    from femur_tasks.steps.context import open_context
    from femur_tasks.steps.signatures import download as proven

    key = proven(open_context(), name, kind, out)
    err.print(f"{out}: {key}", highlight=False)


def _registry() -> Registry:
    from femur_tasks.registry.database import Registry
    from femur_tasks.settings import settings

    return Registry(settings().database_url)
