"""`femur dataset`: dataset versions, what is in them and between them, and what came of ingests."""

from __future__ import annotations

import getpass
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from femur_tasks.cli.show import WIDE, AsJson, bar, err, out, print_json, print_table, text, when
from femur_tasks.errors import FemurError

if TYPE_CHECKING:
    from femur_tasks.registry.database import Registry

app = typer.Typer(no_args_is_help=True)
VersionArgument = Annotated[
    str, typer.Argument(metavar="NAME[@DIGEST]", help="Such as femur, its newest, or femur@3f2a.")
]
NameOption = Annotated[str | None, typer.Option("--name", help="Only this dataset.")]
_EMPTY = "No dataset version yet. `femur ingest FOLDER` makes one."
_NO_INGEST = "No ingest yet. `femur ingest FOLDER` is one."
_SHOWN_IDS = 20
_COLOURS = {"large": "red", "some": "yellow", "refused": "red", "ingested": "green"}


@app.callback()
def dataset() -> None:
    """Look at dataset versions, compare, export; withdraw a case.

    Examples:

      femur dataset list
      femur dataset show femur
      femur dataset diff femur@3f2a femur
    """


@app.command("list")
def list_versions(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this dataset.")] = None,
    as_json: AsJson = False,
) -> None:
    """List dataset versions, the newest first, and which champions were trained on them.

    Examples:

      femur dataset list
      femur dataset list clinic-a --json
    """
    from femur_tasks.steps import datasets

    with _registry().reading() as session:
        rows = datasets.versions(session, name)
    if as_json:
        print_json(rows)
        return
    shown = [
        (
            _short(f"{row['dataset']}@{row['digest']}"),
            f"{row['train_cases']}/{row['val_cases']}/{row['test_cases']}",
            str(row["warnings"]),
            ", ".join(row["champion_of"]),
            when(row["created_at"]),
            text(row["layout"]),
            text(row["femur_class"]),
        )
        for row in rows
    ]
    columns = ("version", "train/val/test", "warnings", "champion", "created", "layout", "femur")
    shows = len(columns) if out.width >= WIDE else len(columns) - 2
    print_table("Dataset versions", columns[:shows], [cells[:shows] for cells in shown], _EMPTY)


@app.command()
def show(name: VersionArgument, as_json: AsJson = False) -> None:
    """Everything about one version: source, problems by kind, drift, withdrawals, ingests.

    Examples:

      femur dataset show femur
      femur dataset show femur@3f2a --json
    """
    from femur_tasks.steps import datasets

    with _registry().reading() as session:
        row = datasets.version_in_full(session, name)
    if as_json:
        print_json(row)
        return
    fields = {
        "digest": row["digest"],
        "cases": f"{_counts(row)} train/val/test",
        "champion": ", ".join(row["champion_of"]),
        "created": when(row["created_at"]),
        "withdrawn since": _ids(row["withdrawn_cases"]),
        **{name.replace("_", " "): text(row[name]) for name in ("source", "layout", "femur_class", "size")},
    }
    title = _short(f"{row['dataset']}@{row['digest']}")
    print_table(title, ("field", "value"), [(name, value) for name, value in fields.items() if value])
    problems = [
        (
            found["code"],
            f"{found['count']}{' lifted' if found['lifted'] else ''}",
            "\n".join(f"{example['case_id']}: {example['found']}" for example in found["examples"]),
            found["todo"],
        )
        for found in row["problems"]
    ]
    if problems:
        print_table("Problems", ("code", "count", "such as", "what to do"), problems)
    if row["drift"]:
        _show_drift(f"Drift against {_short(row['drift_against'])}", row["drift"])
    if row["withdrawals"]:
        gone = [(found["case_id"], when(found["at"]), found["actor"], found["reason"]) for found in row["withdrawals"]]
        print_table("Withdrawn from the dataset", ("case", "when", "by", "why"), gone)
    if row["ingests"]:
        _show_ingests(row["ingests"], ("ingest", "state", "finished", "report"))


@app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="NAME[@DIGEST] of the version before.")],
    after: Annotated[str, typer.Argument(metavar="B", help="NAME[@DIGEST] of the version after.")],
    as_json: AsJson = False,
) -> None:
    """Compare two versions: cases added, removed and changed, and drift.

    A name alone is the dataset's newest version.

    Examples:

      femur dataset diff femur@3f2a femur@91c0
      femur dataset diff femur@3f2a femur --json
    """
    from femur_tasks.steps import datasets

    with _registry().reading() as session:
        found = datasets.compare(session, before, after)
    if as_json:
        print_json(found)
        return
    kinds = {"added": found["added"], "removed": found["removed"]}
    kinds |= {f"{what} changed": case_ids for what, case_ids in found["changed"].items()}
    rows = [(kind, str(len(case_ids)), _ids(case_ids)) for kind, case_ids in kinds.items() if case_ids]
    title = f"{_short(found['before'])} to {_short(found['after'])}"
    print_table(title, ("", "cases", "ids"), rows, f"No case differs from {title}.")
    out.print(f"{found['unchanged']} cases unchanged", highlight=False)
    if found["drift"]:
        _show_drift("Drift", found["drift"])


@app.command()
def export(
    name: VersionArgument,
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to: empty, or of the same export.")],
) -> None:
    """Write a version as NIfTI pairs with a class table, in the reference layout.

    The same command goes on where one was stopped. Ingested again, the
    folder is the same version.

    Examples:

      femur dataset export femur --out femur-v3
      femur dataset export femur@3f2a --out /mnt/share/femur-3f2a
    """
    from femur_tasks.steps.context import open_context
    from femur_tasks.steps.datasets import label
    from femur_tasks.steps.export import export as step

    with bar("cases") as advance:
        done = step(open_context(), name, folder, lambda _done, total: advance(1, total))
    kept = f", {done.kept} of them there already" if done.kept else ""
    out.print(f"exported {label(done.dataset, done.digest)}: {done.cases} cases{kept}", highlight=False)
    command = ["femur", "ingest", str(folder), "--name", done.dataset, "--femur-class", "femur"]
    command += ["--size", str(done.size), *(word for code in done.allowed for word in ("--allow", code))]
    _say(f"The same version again: {shlex.join(command)}")
    if done.shared_patients:
        _say(
            f"Not in the files: {done.shared_patients} patients have several cases. An ingest of the folder counts "
            "each case as a patient, so it makes another version."
        )
    if done.withdrawn:
        _say(f"Withdrawn since, do not pass on: {_ids(done.withdrawn)}.")


@app.command()
def withdraw(
    case_id: Annotated[str, typer.Argument(metavar="CASE", help="Id of the case.")],
    name: Annotated[str, typer.Option("--name", help="Dataset to take it out of.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it goes into the log.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Record nothing, say what would be recorded.")] = False,
) -> None:
    """Take a case out of all later versions of a dataset: neither its id nor its picture returns.

    Nothing is erased: versions that hold it keep it, and so do the store and
    whatever was trained on it.

    Examples:

      femur dataset withdraw HIP_0007 --name femur --reason "consent withdrawn, 3 July" --dry-run
      femur dataset withdraw HIP_0007 --name femur --reason "consent withdrawn, 3 July"
    """
    from femur_tasks.steps import withdrawals
    from femur_tasks.steps.context import open_context

    found = withdrawals.withdraw(open_context(), name, case_id, reason, f"cli:{getpass.getuser()}", dry_run)
    said = {
        withdrawals.WITHDRAWN: f"withdrawn {case_id} from {name}, by {found.actor}: {found.reason}",
        withdrawals.ALREADY: f"{case_id} was withdrawn from {name} already, on {when(found.at.isoformat())} "
        f"by {found.actor}: {found.reason}",
        withdrawals.DRY_RUN: f"would withdraw {case_id} from {name}, by {found.actor}: {found.reason} "
        f"(picture {found.image_sha256[:12]})",
    }
    out.print(said[found.state], highlight=False, markup=False, soft_wrap=True)
    if found.held_by:
        print_table("Versions that still hold it", ("version", "as case"), found.held_by)
    if found.elsewhere:
        print_table("Other datasets with the same picture: withdraw it there too", ("version", "case"), found.elsewhere)
    _say("Later versions leave it out; raw files of earlier ones stay in the store until those are deleted.")


@app.command()
def report(
    ingest_id: Annotated[str | None, typer.Argument(metavar="[INGEST_ID]", help="Empty: the newest.")] = None,
    name: NameOption = None,
    path: Annotated[Path | None, typer.Option("--out", help="File to write. Empty: ./ingest-<id>.html.")] = None,
) -> None:
    """Write the HTML report of an ingest to a file, and print where.

    Examples:

      femur dataset report
      femur dataset report --name clinic-a --out july.html
    """
    from femur_tasks.steps.context import open_context
    from femur_tasks.steps.datasets import ingest_report

    found, page = ingest_report(open_context(), ingest_id, name)
    path = path or Path(f"ingest-{re.sub(r'[^A-Za-z0-9_.-]', '-', found)}.html")
    try:
        path.write_bytes(page)
    except OSError as failed:
        raise FemurError(f"Expected a file to write. Received: {path}, {failed.strerror}.") from failed
    out.print(str(path), highlight=False, markup=False, soft_wrap=True)


@app.command()
def ingests(name: NameOption = None, as_json: AsJson = False) -> None:
    """List ingests, the newest first, those that were refused too.

    Examples:

      femur dataset ingests
      femur dataset ingests --name clinic-a --json
    """
    from femur_tasks.steps import datasets

    with _registry().reading() as session:
        rows = datasets.ingests(session, name)
    if as_json:
        print_json(rows)
        return
    columns = ("ingest", "version", "state", "errors", "warnings", "finished", "source")
    _show_ingests(rows, columns if out.width >= WIDE else columns[:-1])


def _show_ingests(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> None:
    def cells(row: Mapping[str, Any]) -> dict[str, str | Text]:
        return {
            "ingest": row["ingest_id"],
            "version": f"{row['dataset']}@{row['digest'][:12]}" if row["digest"] else row["dataset"],
            "state": _coloured(row["state"]),
            "errors": str(row["errors"]),
            "warnings": str(row["warnings"]),
            "source": row["source"],
            "finished": when(row["finished_at"]),
            "report": row["report_key"],
        }

    shown = [[cells(row)[column] for column in columns] for row in rows]
    print_table("Ingests", columns, shown, _NO_INGEST)


def _show_drift(title: str, rows: Iterable[Mapping[str, Any]]) -> None:
    shown = [
        (
            row["feature"],
            row["split"],
            _coloured(row["level"] or "too few cases"),
            "" if row["psi"] is None else f"{row['psi']:.2f}",
            "" if row["ks"] is None else f"{row['ks']:.2f}",
            "" if row["ks_p"] is None else f"{row['ks_p']:.2g}",
            f"{row['before_cases']}, {row['after_cases']}",
        )
        for row in rows
    ]
    print_table(title, ("feature", "split", "drift", "PSI", "KS", "p", "cases before, after"), shown)


def _coloured(word: str) -> Text:
    return Text(word, _COLOURS.get(word, ""))


def _counts(row: Mapping[str, Any]) -> str:
    return f"{row['cases']} ({row['train_cases']}/{row['val_cases']}/{row['test_cases']})"


def _short(version: str) -> str:
    """NAME@DIGEST as people call it."""
    name, _, digest = version.partition("@")
    return f"{name}@{digest[:12]}"


def _ids(case_ids: Sequence[str]) -> str:
    more = len(case_ids) - _SHOWN_IDS
    return ", ".join(case_ids[:_SHOWN_IDS]) + (f" and {more} more" if more > 0 else "")


def _say(sentence: str) -> None:
    err.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _registry() -> Registry:
    from femur_tasks.registry.database import Registry
    from femur_tasks.settings import settings

    return Registry(settings().database_url)
