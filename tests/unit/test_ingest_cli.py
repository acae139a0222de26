"""`femur ingest`: what it says, what it leaves alone, and with which code it ends."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console
from sqlalchemy import select

from femur_tasks import cli
from femur_tasks.cli import show
from femur_tasks.registry.tables import DatasetVersion, IncomingObject
from femur_tasks.settings import settings
from femur_tasks.steps.context import Context
from tests.radiographs import REFERENCE, packed, write_reference

Femur = Callable[..., int]
Said = pytest.CaptureFixture[str]


@pytest.fixture
def femur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Femur]:
    """Runs `femur ingest` in this process, in a home that is not there yet, and returns the exit code."""
    for name in [name for name in os.environ if name.startswith("FEMUR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FEMUR_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(show.out, "width", 300)  # else long paths fold what the tests look for
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["femur", "ingest", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    yield run
    settings.cache_clear()


@pytest.fixture
def stack(femur: Femur, context: Context, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A registry and a store that answer."""
    monkeypatch.setattr("femur_tasks.steps.context.open_context", lambda: context)
    return context


@pytest.fixture
def good(tmp_path: Path) -> str:
    return str(write_reference(tmp_path / "good"))


@pytest.fixture
def bad(tmp_path: Path) -> str:
    """A without its mask, B unreadable."""
    source = write_reference(tmp_path / "bad")
    (source / "train" / "targets" / "A.nii.gz").unlink()
    (source / "train" / "imgs" / "B.nii.gz").write_bytes(b"")
    return str(source)


def versions(context: Context) -> list[str]:
    with context.registry.reading() as session:
        return list(session.scalars(select(DatasetVersion.digest)))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ---- dry runs


def test_dry_run_needs_no_stack_and_leaves_nothing(
    femur: Femur, tmp_path: Path, good: str, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    before = tree(tmp_path)
    assert femur(good, "--size", "32", "--dry-run") == 0
    said = capsys.readouterr().out
    assert "would be ingested as femur@" in said
    assert "3 train, 1 val, 1 test; nothing has changed" in said
    assert "few_test_cases" in said
    assert not (tmp_path / "home").exists()
    assert list((tmp_path / "tmp").glob("femur-*")) == []
    assert tree(tmp_path) == before


def test_dry_run_of_a_bad_source_says_everything_and_ends_with_2(
    femur: Femur, tmp_path: Path, bad: str, capsys: Said
) -> None:
    assert femur(bad, "--size", "32", "--dry-run") == 2
    said = capsys.readouterr()
    for word in ("missing_partner", "unreadable", "--allow missing_partner", "no bytes"):
        assert word in said.out
    assert said.err.splitlines() == [
        "Refused: nothing of femur changed.",
        "Correct every error above and ingest again.",
    ], "and no report to ask for: a dry run keeps none"
    assert not (tmp_path / "home").exists()


def test_dry_run_changes_nothing_of_a_home_that_is_there(femur: Femur, stack: Context, good: str, capsys: Said) -> None:
    home = stack.settings.home
    for name in ("registry.db-wal", "registry.db-shm"):
        (home / name).unlink(missing_ok=True)
    before = (home / "registry.db").read_bytes()
    assert femur(good, "--size", "32", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["state"] == "dry run"
    assert (home / "registry.db").read_bytes() == before
    assert {path.name for path in home.iterdir()} <= {"registry.db", "registry.db-wal", "registry.db-shm"}
    assert list(stack.store.list("")) == []


def test_dry_run_knows_what_the_registry_has(femur: Femur, stack: Context, good: str, capsys: Said) -> None:
    assert femur(good, "--size", "32") == 0
    assert femur(good, "--size", "32", "--dry-run") == 0
    assert "nothing new: femur@" in capsys.readouterr().out


def test_dry_run_writes_the_page(femur: Femur, tmp_path: Path, good: str) -> None:
    assert femur(good, "--size", "32", "--dry-run", "--report", "look.html") == 0
    page = (tmp_path / "look.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "few_test_cases" in page


@pytest.mark.parametrize("arguments", [("--dry-run",), ("--report", "x.html")], ids=["dry run", "report"])
def test_one_source_to_look_at_has_to_be_named(
    femur: Femur, tmp_path: Path, capsys: Said, arguments: tuple[str, ...]
) -> None:
    assert femur(*arguments) == 1
    assert capsys.readouterr().err.startswith("Expected a source to look at.\nReceived: none.")
    assert not (tmp_path / "home").exists()


# ---- ingests


def test_ingest_says_what_it_made_and_then_that_there_is_nothing_new(
    femur: Femur, stack: Context, good: str, capsys: Said
) -> None:
    assert femur(good, "--name", "hip", "--size", "32") == 0
    (digest,) = versions(stack)
    assert f"ingested hip@{digest[:12]}: 3 train, 1 val, 1 test" in capsys.readouterr().out
    assert femur(good, "--name", "hip", "--size", "32") == 0
    assert f"nothing new: hip@{digest[:12]} is there already (3 train, 1 val, 1 test)" in capsys.readouterr().out


def test_refused_ingest_ends_with_2_names_its_report_and_writes_it(
    femur: Femur, stack: Context, tmp_path: Path, bad: str, capsys: Said
) -> None:
    assert femur(bad, "--size", "32", "--report", "page.html") == 2
    (key,) = (found.key for found in stack.store.list("reports/"))
    assert (tmp_path / "page.html").read_bytes() == stack.store.get(key)
    assert "`femur dataset report cli-" in capsys.readouterr().err
    assert versions(stack) == []


def test_errors_are_lifted_by_their_codes(femur: Femur, stack: Context, bad: str, capsys: Said) -> None:
    assert femur(bad, "--size", "32", "--allow", "unreadable") == 2
    assert versions(stack) == []
    capsys.readouterr()
    assert femur(bad, "--size", "32", "--allow", "unreadable", "--allow", "missing_partner") == 0
    said = capsys.readouterr().out
    assert "1 train, 1 val, 1 test" in said
    assert said.count("allowed") == 2
    assert len(versions(stack)) == 1


def test_json_says_the_whole_result_and_nothing_else(femur: Femur, stack: Context, bad: str, capsys: Said) -> None:
    assert femur(bad, "--size", "32", "--allow", "unreadable", "--json") == 2
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == {"ingest_id", "state", "dataset", "digest", "counts", "problems", "report_key"}
    assert (said["state"], said["dataset"], said["digest"], said["counts"]) == ("refused", "femur", None, {})
    assert said["problems"] == [
        {
            "code": "missing_partner",
            "case_id": "A",
            "found": "only its image",
            "expected": "its mask in train/targets/",
            "allowed": False,
            "is_error": True,
            "todo": "Add the missing file, or leave the case out with --allow missing_partner.",
        },
        {
            "code": "unreadable",
            "case_id": "B",
            "found": "image: no bytes",
            "expected": "a NIfTI, PNG, JPEG, TIFF or DICOM file",
            "allowed": True,
            "is_error": False,
            "todo": "Export the file again, or leave the case out with --allow unreadable.",
        },
        {
            "code": "few_test_cases",
            "case_id": "femur",
            "found": "1 test cases",
            "expected": "20 or more, or the gate will refuse",
            "allowed": False,
            "is_error": False,
            "todo": "Add test cases: the gate refuses with so few.",
        },
    ]


def test_without_a_path_all_that_waits_is_ingested_oldest_first(
    femur: Femur, stack: Context, tmp_path: Path, capsys: Said
) -> None:
    for dataset, splits in (("hip", {}), ("knee", {"F": "train"})):
        archive = packed(write_reference(tmp_path / dataset, {**REFERENCE, **splits}), tmp_path / f"{dataset}.zip")
        stack.store.put_named(archive, f"incoming/{dataset}/v1.zip")
    stack.store.put_named(b"nothing of ours", "incoming/ulna/notes.txt")
    assert femur("--size", "32", "--json") == 2
    said = capsys.readouterr()
    assert [(one["dataset"], one["state"]) for one in json.loads(said.out)] == [
        ("hip", "ingested"),
        ("knee", "ingested"),
        ("ulna", "refused"),
    ]
    assert said.err.startswith("Refused: nothing of ulna changed.")
    with stack.registry.reading() as session:
        assert set(session.scalars(select(IncomingObject.state))) == {"ingested", "refused"}
    assert femur("--json") == 0
    said = capsys.readouterr()
    assert (json.loads(said.out), said.err.startswith("Nothing waits under incoming/.")) == ([], True)


@pytest.mark.parametrize("arguments", [(), ("good",)], ids=["what waits", "a folder"])
def test_without_a_store_it_ends_with_3_and_says_what_to_start(
    femur: Femur, good: str, capsys: Said, arguments: tuple[str, ...]
) -> None:
    assert femur(*arguments) == 3
    said = capsys.readouterr()
    what, why, todo = said.err.strip().splitlines()
    assert (what, why[:10]) == ("Expected an object store.", "Received: ")
    assert "`femur up`" in todo
    assert said.out == ""


def test_store_that_is_down_is_named_with_what_to_start(
    femur: Femur, good: str, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ENDPOINT", "127.0.0.1:1"), ("ACCESS_KEY", "a"), ("SECRET_KEY", "s")):
        monkeypatch.setenv(f"FEMUR_S3_{name}", value)
    assert femur(good) == 3
    said = capsys.readouterr().err
    assert said.startswith("Expected the object store to answer.\nReceived: ")
    assert said.endswith("Start the embedded stack with `femur up`, or correct FEMUR_S3_ENDPOINT.\n")
    assert "Traceback" not in said


def test_dry_run_of_an_object_needs_the_store(femur: Femur, capsys: Said) -> None:
    assert femur("s3://femur/x.zip", "--dry-run") == 3
    assert "`femur up`" in capsys.readouterr().err


# ---- progress


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal is sent."""
    sent = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=sent, force_terminal=True, width=120))
    return sent


def test_bars_count_up_to_a_total(terminal: io.StringIO) -> None:
    with show.bars() as advance:
        advance("cases", None, 4)
        advance("cases", None, 4)
        advance("bytes", 30, 100)
    sent = terminal.getvalue()
    assert "2/4" in sent
    assert "30/100" in sent


def test_bar_without_a_total_shows_what_is_done_and_learns_the_total(terminal: io.StringIO) -> None:
    with show.bars() as advance:
        advance("bytes", 17, None)
    assert "17/?" in terminal.getvalue()
    with show.bars() as advance:
        advance("bytes", 17, None)
        advance("bytes", 18, 20)
    assert "18/20" in terminal.getvalue()


def test_bars_are_silent_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=sent, force_terminal=False))
    with show.bars() as advance:
        advance("bytes", 17, None)
        advance("cases", None, 4)
    assert sent.getvalue() == ""
