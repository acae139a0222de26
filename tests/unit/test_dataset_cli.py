"""`femur dataset`: what it shows, what it says where there is nothing, and how it fails."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from femur_tasks import cli
from femur_tasks.cli import show
from femur_tasks.dataset.conversion import pixel_digest
from femur_tasks.dataset.manifest import Manifest, ManifestCase
from femur_tasks.registry.tables import DatasetCase, DatasetDrift, Ingest, Withdrawal
from femur_tasks.settings import settings
from femur_tasks.steps.context import Context
from tests.radiographs import grey_hw, labels_hw, nifti
from tests.registry_rows import NOON, dataset_version, digest_of

COMMANDS = ("list", "show", "diff", "export", "withdraw", "report", "ingests")
Femur = Callable[..., int]
Said = pytest.CaptureFixture[str]
OLD, NEW = digest_of("old"), digest_of("new")


@pytest.fixture
def femur(context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Femur]:
    """Runs `femur dataset` in this process, on the context of the test, and returns the exit code."""
    for name in [name for name in os.environ if name.startswith("FEMUR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FEMUR_HOME", str(context.settings.home))
    monkeypatch.setattr("femur_tasks.steps.context.open_context", lambda: context)
    monkeypatch.setattr(show.out, "width", 300)  # else long paths fold what the tests look for
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["femur", "dataset", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0)

    yield run
    settings.cache_clear()


@pytest.fixture
def filled(context: Context) -> Context:
    """Two versions: A stays, 25 cases go and B comes; one ingest that was refused and one that was not."""
    soft = {"code": "soft_mask", "case_id": "A", "found": "[/] 7 values", "expected": "x", "allowed": False}

    def case(digest: str, case_id: str, **values: object) -> DatasetCase:
        given = {"patient": case_id, "split": "train", "image_sha256": digest_of(case_id), "mask_sha256": "m"}
        sizes = {"height_px": 40, "width_px": 48, "problems": []}
        return DatasetCase(digest=digest, case_id=case_id, **{**given, **sizes, **values})

    with context.registry.writing() as session:
        dataset_version(session, "old")
        dataset_version(session, "new", at=NOON.replace(hour=13))
        session.add_all(case(OLD, case_id) for case_id in ("A", *(f"G{n:02d}" for n in range(25))))
        session.add_all([case(NEW, "A", problems=[{**soft, "todo": "look"}]), case(NEW, "B")])
        figures = {"psi": 0.5, "ks": 0.4, "ks_p": 0.001, "before_cases": 9, "after_cases": 10}
        session.add(
            DatasetDrift(digest=NEW, against_digest=OLD, split="all", feature="width_px", level="large", **figures)
        )
        for hour, (ingest_id, state) in enumerate((("cli-1", "ingested"), ("manual__12:30+00", "refused"))):
            session.add(
                Ingest(
                    ingest_id=ingest_id, dataset="femur", source="night.zip", state=state,
                    digest=NEW if state == "ingested" else None, layout="reference", cases=2, errors=4 * hour,
                    warnings=1, allowed=[], problems=[], report_key=context.store.put(ingest_id.encode(), "reports"),
                    started_at=NOON, finished_at=NOON.replace(hour=13 + hour),
                )
            )  # fmt: skip
    return context


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example(femur: Femur, capsys: Said, command: str) -> None:
    assert femur(command, "--help") == 0
    assert f"femur dataset {command}" in capsys.readouterr().out.partition("Examples:")[2]


@pytest.mark.parametrize("question", ["list", "ingests"])
def test_empty_registry_says_how_to_fill_it(femur: Femur, capsys: Said, question: str) -> None:
    assert femur(question, "--json") == 0
    assert json.loads(capsys.readouterr().out) == []
    assert femur(question) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "`femur ingest" in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "femurs"),
        ("show", "femurs"),
        ("show", "femur@0000"),
        ("diff", "femur", "femurs"),
        ("export", "femurs", "--out", "x"),
        ("withdraw", "G1", "--name", "femur", "--reason", "asked"),
        ("report", "cli-2"),
        ("report", "--name", "clinic"),
    ],
    ids=" ".join,
)
def test_what_is_not_there_ends_with_1_and_what_to_do(
    femur: Femur, filled: Context, capsys: Said, arguments: tuple[str, ...]
) -> None:
    assert femur(*arguments) == 1
    what, why, todo = capsys.readouterr().err.strip().splitlines()
    assert (what[:10], why[:10]) == ("Expected a", "Received: ")
    assert todo


def test_list_shows_the_newest_first(femur: Femur, filled: Context, capsys: Said) -> None:
    assert femur("list") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if "femur@" in line]
    assert [line.split()[0] for line in lines] == [f"femur@{NEW[:12]}", f"femur@{OLD[:12]}"]
    assert " 1/1/1 " in lines[0]
    assert femur("list", "femur", "--json") == 0
    assert [row["warnings"] for row in json.loads(capsys.readouterr().out)] == [1, 0]


def test_show_has_problems_drift_and_ingests(femur: Femur, filled: Context, capsys: Said) -> None:
    assert femur("show", "femur") == 0
    said = capsys.readouterr().out
    for words in (NEW, "A: [/] 7 values", f"Drift against femur@{OLD[:12]}", "width_px", "large", "cli-1", "reports/"):
        assert words in said
    assert femur("show", f"femur@{NEW[:6]}", "--json") == 0
    assert json.loads(capsys.readouterr().out)["problems"][0]["code"] == "soft_mask"


def test_diff_shows_the_first_ids_and_counts_all(femur: Femur, filled: Context, capsys: Said) -> None:
    assert femur("diff", f"femur@{OLD}", "femur") == 0
    said = capsys.readouterr().out
    assert "G19 and 5 more" in said
    assert "G20" not in said
    assert "1 cases unchanged" in said
    assert femur("diff", f"femur@{OLD}", "femur", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["removed"]) == 25
    assert femur("diff", "femur", "femur") == 0
    assert "No case differs" in capsys.readouterr().err


def withdrawn(context: Context) -> list[tuple[str, str]]:
    with context.registry.reading() as session:
        return [(row.case_id, row.actor) for row in session.scalars(select(Withdrawal))]


def test_withdraw_is_dry_then_done_then_known(femur: Femur, filled: Context, capsys: Said) -> None:
    asked = ("withdraw", "A", "--name", "femur", "--reason", "asked [for]")
    assert femur(*asked, "--dry-run") == 0
    assert withdrawn(filled) == []
    said = capsys.readouterr().out
    assert "would withdraw A from femur, by cli:me: asked [for]" in said
    assert f"femur@{OLD[:12]}" in said
    assert femur(*asked) == 0
    assert withdrawn(filled) == [("A", "cli:me")]
    assert "stay in the store" in capsys.readouterr().err
    assert femur(*asked) == 0
    assert "already" in capsys.readouterr().out


def test_ingests_shows_the_newest_first_and_report_writes_it(
    femur: Femur, filled: Context, capsys: Said, tmp_path: Path
) -> None:
    assert femur("ingests", "--name", "femur") == 0
    said = capsys.readouterr().out
    assert said.index("manual__12:30+00") < said.index("cli-1")
    assert femur("report") == 0
    assert capsys.readouterr().out == "ingest-manual__12-30-00.html\n"
    assert (tmp_path / "ingest-manual__12-30-00.html").read_bytes() == b"manual__12:30+00"
    assert femur("report", "cli-1", "--out", "mine.html") == 0
    assert (tmp_path / "mine.html").read_bytes() == b"cli-1"
    assert femur("report", "--out", "no/such/folder.html") == 1
    assert "Expected a file to write" in capsys.readouterr().err


def test_export_says_how_to_ingest_it_again(femur: Femur, context: Context, capsys: Said, tmp_path: Path) -> None:
    grey, labels = grey_hw(0), labels_hw(0)
    mask = (labels == 1).astype(np.uint8)
    keys = {name: context.store.put(nifti(pixels.T), "raw") for name, pixels in (("i", grey), ("m", labels))}
    case = ManifestCase("A", "A", "val", pixel_digest(grey), pixel_digest(mask), 40, 48, None, keys["i"], keys["m"])
    manifest = Manifest("femur", 32, (1,), (case,), {})
    with context.registry.writing() as session:
        version = dataset_version(session, size=32)
        version.digest, version.manifest_key = manifest.digest, context.store.put(manifest.to_json(), "manifests")
    assert femur("export", "femur", "--out", "my xrays") == 0
    said = capsys.readouterr()
    assert f"exported femur@{manifest.digest[:12]}: 1 cases" in said.out
    assert "femur ingest 'my xrays' --name femur --femur-class femur --size 32" in said.err
    assert (tmp_path / "my xrays" / "valid" / "targets" / "A.nii.gz").is_file()
    assert femur("export", "femur", "--out", "my xrays") == 0
    assert "1 of them there already" in capsys.readouterr().out
