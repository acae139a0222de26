"""`femur verify` and `femur gc`: the audit of the whole, and what nobody needs any more."""

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


def gc(
    keep: Annotated[int, typer.Option(min=1, help="Newest versions of each family whose files stay.")] = 3,
    grace_hours: Annotated[float, typer.Option(min=2, help="What is younger stays: work may be going on.")] = 24,
    force: Annotated[bool, typer.Option("--force", help="Delete even more than half of what is in the store.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete files that nobody needs any more.

    Kept are champions, former champions, the newest versions of each family, every dataset version, every report, and
    all that these name. What goes are files of other model versions (their rows, scores and verdicts stay), checkpoints
    of runs that ended, and objects that no row names.

    Examples:

      femur gc --dry-run
      femur gc --keep 10
    """
    from dataclasses import asdict

    from femur_tasks.steps.collect import collect
    from femur_tasks.steps.context import open_context

    with bars() as advance:
        grace = timedelta(hours=grace_hours)
        found = collect(
            open_context(), keep, grace, dry_run, force or dry_run, lambda total: advance("objects", None, total)
        )
    if as_json:
        print_json({**asdict(found), "bytes": found.bytes, "dry_run": dry_run})
        return
    kinds: dict[str, list[int]] = {}
    for stored in found.objects:
        kinds.setdefault(stored.key.partition("/")[0], []).append(stored.size)
    rows = [(kind, str(len(sizes)), f"{sum(sizes) / 1e6:.1f}") for kind, sizes in sorted(kinds.items())]
    title = "Would be deleted" if dry_run else "Deleted"
    print_table(title, ("objects", "number", "MB"), rows, "Nothing to delete.")
    for what, names in (("model versions", found.versions), ("checkpoints of runs", found.runs)):
        if names:
            err.print(f"{'Would collect' if dry_run else 'Collected'} {what}: {', '.join(names)}", highlight=False)
