"""`femur demo-data` and `ingest`: where dataset versions come from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from femur_tasks.cli.show import AsJson, bar, err, out, print_json, print_table
from femur_tasks.errors import Rejected
from femur_tasks.parameters import BUDGETS, IngestParameters

if TYPE_CHECKING:
    from femur_tasks.steps.ingest import Ingested

_FIELDS = IngestParameters.model_fields


def demo_data(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write the reference layout to.")],
    cases: Annotated[int, typer.Option(min=5, help="How many cases: 60% train, 20% valid, 20% test.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same cases.")] = 0,
    size: Annotated[int, typer.Option(min=64, max=4096, help="Edge of the pictures, px.")] = 512,
) -> None:
    """Make synthetic AP pelvis radiographs with multi-class masks, for trying things out.

    A larger set of the same seed and size holds the smaller one's files
    unchanged, as a growing archive would.

    Examples:

      femur demo-data --out xrays
      femur demo-data --out xrays --cases 125
    """
    from femur_tasks.phantom import write_dataset

    with bar("cases") as advance:
        write_dataset(folder, cases, seed, size, on_case=lambda: advance(1, cases))
    err.print(f"{cases} synthetic cases in {folder}")


def ingest(
    path: Annotated[str, typer.Argument(help="Folder, .zip, .tar.gz or s3://bucket/prefix to ingest.")],
    name: Annotated[str, typer.Option("--name", help=_FIELDS["dataset"].description)] = _FIELDS["dataset"].default,
    femur_label: Annotated[int | None, typer.Option(help=_FIELDS["femur_label"].description)] = None,
    size: Annotated[int | None, typer.Option(help=_FIELDS["size"].description)] = None,
    model: Annotated[str | None, typer.Option(help=_FIELDS["model"].description)] = None,
    budget: Annotated[str | None, typer.Option(metavar="|".join(BUDGETS), help=_FIELDS["budget"].description)] = None,
    as_json: AsJson = False,
) -> None:
    """Ingest a dataset version. Exits with 2 and a table of all problems when it is refused.

    Expects pairs imgs/CASE.nii.gz and targets/CASE.nii.gz under train, valid
    and test, or images/ and labels/ without splits. The same data again changes nothing.

    Examples:

      femur ingest xrays
      femur ingest night-shift.zip --name clinic-a --femur-label 1
      femur ingest s3://femur/incoming/july --budget full
    """
    parameters = IngestParameters.model_validate(
        {"path": path, "dataset": name, "femur_label": femur_label, "size": size, "model": model, "budget": budget}
    )
    # after the check: these take a second to load
    from femur_tasks.steps.context import open_context
    from femur_tasks.steps.ingest import ingest as step

    context = open_context()
    with bar("cases") as advance:
        result = step(context, parameters, progress=lambda done, total: advance(1, total))
    if as_json:
        print_json(result.as_dict())
    else:
        show_ingested(result)
    if result.state == "refused":
        raise Rejected(f"Refused: nothing of {result.dataset} changed.", "Correct every error above and ingest again.")


def show_ingested(result: Ingested) -> None:
    """Print what came of an ingest, with all its problems."""
    rows = [
        (
            Text("error", "red") if problem.is_error else "warning",
            problem.case_id,
            problem.code,
            problem.found,
            problem.expected,
        )
        for problem in result.problems
    ]
    if rows:
        print_table("Problems", ("", "case", "code", "found", "expected"), rows)
    counts = ", ".join(f"{count} {split}" for split, count in result.counts.items())
    version = f"{result.dataset}@{str(result.digest)[:12]}"
    if result.state == "ingested":
        out.print(Text.assemble(("ingested", "green"), f" {version}: {counts}"))
    elif result.state == "known":
        out.print(f"nothing new: {version} is there already ({counts})", highlight=False)
