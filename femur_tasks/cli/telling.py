"""`femur notify` and `femur metrics`: what is told to people, and to what watches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from femur_tasks.cli.show import AsJson, err, print_json, print_table
from femur_tasks.errors import FemurError


def notify(
    test: Annotated[bool, typer.Option("--test", help="Send a test message instead, and say who took it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send what people were not told yet, as the DAG `morning_watch` does each morning.

    Promotions, refusals, failures and drift of the last three days, models
    without a verdict for some nights, and parts of the stack that do not work
    go to the places of FEMUR_NOTIFY_URLS, each once. With --test exit code 1
    says that a place did not take it.

    Examples:

      FEMUR_NOTIFY_URLS="mailto://me:secret@mail.example" femur notify --test
      femur notify                          (from the system's own cron)
    """
    from femur_tasks.settings import settings
    from femur_tasks.steps import notify as steps
    from femur_tasks.steps.context import open_context

    if not settings().notify_places:
        raise FemurError(
            "Expected FEMUR_NOTIFY_URLS to name a place for messages. Received: none.",
            "docs/observability.md shows some; set it in the environment or in `.env`.",
        )
    if not test:
        steps.watch(open_context())
        return
    deliveries = steps.send_test(settings())
    if as_json:
        print_json([{"place": one.place, "sent": one.is_sent, "why": one.why} for one in deliveries])
    else:
        rows = [(one.place, "sent" if one.is_sent else "failed", one.why) for one in deliveries]
        print_table("A test message", ("place", "", "why"), rows)
    if failed := [one.place for one in deliveries if not one.is_sent]:
        raise FemurError(f"Expected every place to take it. Received: not {', '.join(failed)}.", "Correct its URL.")


def metrics(
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Replace this file in one step, for a textfile collector."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what the registry holds as metrics for Prometheus, or as JSON: a name, labels and value each.

    Examples:

      femur metrics
      femur metrics --out /var/lib/node_exporter/femur.prom
    """
    if as_json and out_file is not None:
        raise FemurError("Expected --json or --out. Received: both.", "The file is for Prometheus, in its own format.")
    from femur_tasks.registry.database import Registry
    from femur_tasks.registry.metrics import exposition, samples
    from femur_tasks.settings import settings
    from femur_tasks.steps.context import utc_now

    with Registry(settings().database_url).reading() as session:
        if as_json:
            print_json(samples(session, utc_now()))
            return
        found = exposition(session, utc_now())
    if out_file is None:
        typer.echo(found, nl=False)
        return
    part = out_file.with_name(f"{out_file.name}.part")
    part.write_bytes(found)
    part.chmod(0o644)  # another user's collector reads it
    part.replace(out_file)
    err.print(f"{found.count(b'# HELP')} metrics in {out_file}", highlight=False)
