"""`femur verify`: the audit of the whole."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from femur_tasks.cli.show import AsJson, bars, err, print_json, print_table
from femur_tasks.errors import Rejected


def verify(
    grace_hours: Annotated[
        float, typer.Option(min=0, help="Objects that no row names are found when they are older than this.")
    ] = 24,
    as_json: AsJson = False,
) -> None:
    """Audit the whole: objects, signatures, champions.

    Reads every object that a row names and compares its digest, proves every signature, resolves every champion, and
    finds what no row names. It changes nothing. Exit code 2 where something is wrong.

    Examples:

      femur verify
      femur verify --grace-hours 1 --json
    """
    from dataclasses import asdict

    from femur_tasks.steps.context import open_context
    from femur_tasks.steps.verify import verify as audit

    with bars() as advance:
        found, read = audit(open_context(), timedelta(hours=grace_hours), lambda total: advance("objects", None, total))
    if as_json:
        print_json({"objects": read, "findings": [asdict(one) for one in found]})
    else:
        rows = [(one.code, one.what, one.todo) for one in found]
        print_table("Findings", ("code", "what", "what to do"), rows, f"All is well: {read} objects read.")
        err.print(f"{read} objects read, {len(found)} findings", highlight=False)
    if found:
        raise Rejected(f"{len(found)} things are wrong, the first: {found[0].what}.", found[0].todo)
