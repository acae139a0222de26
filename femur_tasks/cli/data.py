"""`femur demo-data` and `ingest`: where dataset versions come from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from femur_tasks.cli.show import AsJson, bars, err, out, print_json, print_table
from femur_tasks.errors import FemurError, Rejected
from femur_tasks.parameters import BUDGETS, LAYOUTS, IngestParameters

if TYPE_CHECKING:
    from femur_tasks.dataset.problems import Problem
    from femur_tasks.steps.context import Context
    from femur_tasks.steps.ingest import Progress
    from femur_tasks.steps.publish import Ingested

_FIELDS = IngestParameters.model_fields
_ROWS = 200


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

    with bars() as advance:
        write_dataset(folder, cases, seed, size, on_case=lambda: advance("cases", None, cases))
    err.print(f"{cases} synthetic cases in {folder}")


def ingest(
    path: Annotated[str | None, typer.Argument(help=_FIELDS["path"].description)] = None,
    name: Annotated[str, typer.Option("--name", help=_FIELDS["dataset"].description)] = _FIELDS["dataset"].default,
    femur_class: Annotated[str | None, typer.Option(help=_FIELDS["femur_class"].description)] = None,
    layout: Annotated[str | None, typer.Option(metavar="|".join(LAYOUTS), help=_FIELDS["layout"].description)] = None,
    patient_pattern: Annotated[str | None, typer.Option(help=_FIELDS["patient_pattern"].description)] = None,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="CODE", help="Error to lift, as often as needed; recorded.")
    ] = None,
    sha256: Annotated[str | None, typer.Option(help=_FIELDS["sha256"].description)] = None,
    size: Annotated[int | None, typer.Option(help=_FIELDS["size"].description)] = None,
    model: Annotated[str | None, typer.Option(help=_FIELDS["model"].description)] = None,
    budget: Annotated[str | None, typer.Option(metavar="|".join(BUDGETS), help=_FIELDS["budget"].description)] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say all of it, change nothing; needs no stack.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write the page with pictures of the cases to this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ingest a dataset version. Exits with 2 and a table of all problems when it is refused.

    Reads {train,valid,test}/{imgs,targets}, images/ labels/, nnU-Net, Medical
    Segmentation Decathlon, and exports of annotation tools: COCO segmentation,
    PNG masks, YOLO polygons. Pictures are NIfTI, PNG, JPEG, TIFF or DICOM;
    DICOM is stored without its header, patients under a keyed pseudonym.
    The same data again changes nothing.

    Examples:

      femur ingest xrays --dry-run --report look.html
      femur ingest night-shift.zip --name clinic-a --femur-class 1
      femur ingest https://tool.example/export.zip --sha256 9f86d0...
      femur ingest pacs/ --allow burned_in --patient-pattern '^(P[0-9]+)_'
      femur ingest                          (what waits under incoming/)
    """
    parameters = IngestParameters.model_validate(
        {
            "path": path, "dataset": name, "femur_class": femur_class, "layout": layout,
            "patient_pattern": patient_pattern, "allow": allow or [], "sha256": sha256, "size": size, "model": model,
            "budget": budget,
        }
    )  # fmt: skip
    # after the check: these take a second to load
    from femur_tasks.steps.context import open_context, open_dry_context
    from femur_tasks.steps.ingest import Progress
    from femur_tasks.steps.ingest import ingest as step
    from femur_tasks.steps.sources import check_there

    if path:
        check_there(path)
    elif dry_run or report:
        raise FemurError("Expected a source to look at. Received: none.", "Name a folder, an archive or a link.")
    context = open_dry_context(str(path)) if dry_run else open_context()
    with bars() as advance:
        told = Progress(
            on_bytes=lambda done, total: advance("bytes", done, total),
            on_cases=lambda done, total: advance("cases", done, total),
            on_stored=lambda done, total: advance("cases stored", done, total),
        )
        results = []
        for result in [step(context, parameters, told, dry_run)] if path else _waiting(context, parameters, told):
            results.append(result)
            if not as_json:
                show_ingested(result)
    if report:
        report.write_bytes(results[0].report)
    if as_json:
        print_json(results[0].as_dict() if path else [result.as_dict() for result in results])
    if refused := [result.dataset for result in results if result.state == "refused"]:
        todo = "Correct every error above and ingest again."
        if not dry_run:
            todo += f" `femur dataset report {results[-1].ingest_id}` writes the page with pictures."
        raise Rejected(f"Refused: nothing of {', '.join(refused)} changed.", todo)


def _waiting(context: Context, parameters: IngestParameters, told: Progress) -> Iterator[Ingested]:
    """Ingest everything that waits, oldest first, and give each result as it comes."""
    from femur_tasks.steps.incoming import ingest_incoming, look_for_incoming

    waiting = look_for_incoming(context)
    if not waiting:
        err.print("Nothing waits under incoming/. Name a source: see `femur ingest --help`.")
    for drop in waiting:
        if result := ingest_incoming(context, drop, parameters, told):
            yield result


def show_ingested(result: Ingested) -> None:
    """Print what came of an ingest, with all its problems and what to do about them."""
    if result.problems:
        show_problems(result.problems)
    counts = ", ".join(f"{count} {split}" for split, count in result.counts.items())
    version = f"{result.dataset}@{str(result.digest)[:12]}"
    if result.state == "ingested":
        out.print(Text.assemble(("ingested", "green"), f" {version}: {counts}"))
    elif result.state == "known":
        out.print(f"nothing new: {version} is there already ({counts})", highlight=False)
    elif result.state == "dry run":
        out.print(f"would be ingested as {version}: {counts}; nothing has changed", highlight=False)


def show_problems(problems: Iterable[Problem]) -> None:
    """Print a table of problems, errors first, and below it what to do about each kind."""
    ordered = sorted(problems, key=lambda problem: not problem.is_error)
    rows = [
        (
            Text("error", "red") if problem.is_error else "allowed" if problem.allowed else "warning",
            problem.case_id,
            problem.code,
            problem.found,
            problem.expected,
        )
        for problem in ordered[:_ROWS]
    ]
    print_table("Problems", ("", "case", "code", "found", "expected"), rows)
    if len(ordered) > _ROWS:
        out.print(f"and {len(ordered) - _ROWS} more: --json and the report have them all")
    kinds = Counter(problem.code for problem in ordered)
    todo = {problem.code: problem.todo for problem in ordered}
    print_table("What to do", ("code", "times", "do"), [(code, str(n), todo[code]) for code, n in kinds.items()])
