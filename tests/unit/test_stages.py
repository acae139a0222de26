"""The stages as tasks: small dicts between them, and each can be tried again wherever it was killed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select

from femur_tasks.dataset.work import Work
from femur_tasks.errors import FemurError, NotFound
from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.tables import DatasetVersion, IncomingObject, Ingest
from femur_tasks.steps import incoming, stages
from femur_tasks.steps import ingest as steps_ingest
from femur_tasks.steps.context import Context
from femur_tasks.steps.incoming import look_for_incoming
from tests.radiographs import REFERENCE, packed, write_reference
from tests.receivers import webhook

ASKED = IngestParameters(size=32)
Planned = dict[str, Any]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_reference(tmp_path / "data")


def planned(context: Context, path: Path, run_id: str = "run-1", **asked: Any) -> Planned:
    source = {"path": str(path)}
    return stages.plan(context, source, IngestParameters(path=str(path), size=32, **asked), run_id)


def drop(context: Context, source: Path, **splits: str) -> dict[str, str]:
    """The one row that waits, of an archive that was dropped."""
    write_reference(source, {**REFERENCE, **splits})
    context.store.put_named(packed(source, source.parent / "v1.zip"), "incoming/femur/v1.zip")
    (row,) = look_for_incoming(context)
    return row


def convert_all(context: Context, plan: Planned) -> list[int]:
    return [stages.convert(context, part) for part in plan["parts"]]


def folders(context: Context) -> list[str]:
    root = context.settings.work_folder
    return [path.name for path in root.iterdir()] if root.exists() else []


def ledger(context: Context) -> list[tuple[str, str | None]]:
    with context.registry.reading() as session:
        return [(row.state, row.digest) for row in session.scalars(select(IncomingObject))]


def changes(context: Context, plan: Planned) -> dict[str, int]:
    """When each file of the work folder was written."""
    folder = context.settings.work_folder / plan["ingest_id"]
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


# ---- what goes between tasks


def test_three_stages_make_a_version(context: Context, source: Path) -> None:
    plan = planned(context, source)
    assert convert_all(context, plan) == [5]
    result = stages.publish(context, plan)
    outcome = result["outcome"]
    assert (outcome["state"], outcome["dataset"], outcome["ingest_id"]) == ("ingested", "femur", plan["ingest_id"])
    with context.registry.reading() as session:
        assert session.get_one(DatasetVersion, outcome["digest"]).cases == 5
        assert session.get_one(Ingest, plan["ingest_id"]).report_key == outcome["report_key"]
    assert context.store.get(outcome["report_key"]).startswith(b"<!doctype html>")
    assert folders(context) == []


def test_what_tasks_hand_on_is_small_json(
    context: Context, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(context, source)
    convert_all(context, plan)
    result = stages.publish(context, plan)
    assert json.loads(json.dumps(result)) == result
    assert len(json.dumps(result["outcome"])) < 500
    monkeypatch.setattr(steps_ingest, "BYTES_A_CHUNK", 1)
    many = write_reference(tmp_path / "many", {f"case_{n:03d}": "train" for n in range(40)})
    plan = planned(context, many)
    assert json.loads(json.dumps(plan)) == plan
    assert plan.keys() == {"ingest_id", "source", "parts", "changed"}
    assert len(json.dumps(plan)) < 100 * len(plan["parts"]) + 300, "no cases and no problems in it"


def test_problems_are_lines_of_the_log(context: Context, source: Path) -> None:
    (source / "train" / "targets" / "A.nii.gz").unlink()
    (source / "train" / "imgs" / "B.nii.gz").write_bytes(b"")
    plan = planned(context, source)
    convert_all(context, plan)
    result = stages.publish(context, plan)
    assert result["outcome"]["state"] == "refused"
    assert result["log"][:2] == [
        "missing_partner A: only its image - expected its mask in train/targets/",
        "unreadable B: image: no bytes - expected a NIfTI, PNG, JPEG, TIFF or DICOM file",
    ]


def test_source_that_is_no_dataset_has_nothing_to_convert_and_is_refused_at_the_end(
    context: Context, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("nothing here")
    plan = planned(context, tmp_path / "notes")
    assert plan["parts"] == []
    result = stages.publish(context, plan)
    assert (result["outcome"]["state"], result["log"][0].split()[0]) == ("refused", "unknown_layout")


# ---- parts


@pytest.mark.parametrize(
    ("fit", "bounds"),
    [
        (0, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        (2, [(0, 2), (2, 4), (4, 5)]),
        (3, [(0, 3), (3, 5)]),
        (5, [(0, 5)]),
    ],
    ids=["cases too large", "two", "three", "all"],
)
def test_parts_hold_every_case_once(
    context: Context, source: Path, monkeypatch: pytest.MonkeyPatch, fit: int, bounds: list[tuple[int, int]]
) -> None:
    largest = max(
        image.stat().st_size + (image.parents[1] / "targets" / image.name).stat().st_size
        for image in source.glob("*/imgs/*")
    )
    monkeypatch.setattr(steps_ingest, "BYTES_A_CHUNK", fit * largest)
    plan = planned(context, source)
    assert [(part["start"], part["stop"]) for part in plan["parts"]] == bounds
    assert convert_all(context, plan) == [stop - start for start, stop in bounds]
    work = Work(context.settings.work_folder, plan["ingest_id"])
    made = work.plan()
    assert made is not None
    assert all(path.exists() for path in work.converted(made).values())


def test_part_that_was_never_converted_is_missed(
    context: Context, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps_ingest, "BYTES_A_CHUNK", 1)
    plan = planned(context, source)
    for part in plan["parts"][:-1]:
        stages.convert(context, part)
    with pytest.raises(FemurError, match="Expected case E to be converted"):
        stages.publish(context, plan)
    stages.convert(context, plan["parts"][-1])
    assert stages.publish(context, plan)["outcome"]["state"] == "ingested"


# ---- tried again


def test_plan_that_is_tried_again_is_the_same_and_nothing_is_fetched_twice(context: Context, tmp_path: Path) -> None:
    archive = packed(write_reference(tmp_path / "data"), tmp_path / "v1.zip")
    first = planned(context, archive)
    before = changes(context, first)
    archive.unlink()
    assert planned(context, archive) == first
    assert changes(context, first) == before


def test_plan_that_was_killed_while_unpacking_begins_anew(context: Context, tmp_path: Path) -> None:
    archive = packed(write_reference(tmp_path / "data"), tmp_path / "v1.zip")
    plan = planned(context, archive)
    folder = context.settings.work_folder / plan["ingest_id"]
    (folder / "plan.json").unlink()
    shutil.rmtree(folder / "source" / "train")
    (folder / "source" / "left_over.png").write_bytes(b"of the killed try")
    again = planned(context, archive)
    assert again == plan
    assert not (folder / "source" / "left_over.png").exists()
    convert_all(context, again)
    assert stages.publish(context, again)["outcome"]["state"] == "ingested"


@pytest.mark.parametrize("other", ["run", "source"])
def test_other_run_or_source_is_another_ingest(context: Context, tmp_path: Path, other: str) -> None:
    one, two = write_reference(tmp_path / "one"), write_reference(tmp_path / "two")
    first = planned(context, one)
    second = planned(context, two if other == "source" else one, "run-1" if other == "source" else "run-2")
    assert first["ingest_id"] != second["ingest_id"]
    assert sorted(folders(context)) == sorted([first["ingest_id"], second["ingest_id"]])


def test_conversion_that_is_tried_again_writes_nothing_twice(context: Context, source: Path) -> None:
    plan = planned(context, source)
    convert_all(context, plan)
    before = changes(context, plan)
    (source / "train" / "imgs" / "A.nii.gz").write_bytes(b"changed meanwhile")
    assert convert_all(context, plan) == [5]
    assert changes(context, plan) == before
    assert stages.publish(context, plan)["outcome"]["state"] == "ingested"


def test_conversion_without_a_plan_says_what_to_run_again(context: Context) -> None:
    with pytest.raises(FemurError, match="Run its first task again"):
        stages.convert(context, {"ingest_id": "none", "start": 0, "stop": 1})


@pytest.mark.parametrize("killed_in", ["settle", "remove", None], ids=["before the ledger", "before the end", "after"])
def test_publish_that_is_killed_after_its_rows_still_announces_the_version(
    context: Context, source: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str | None
) -> None:
    row = drop(context, source)
    plan = stages.plan(context, row, ASKED, "run-1")
    convert_all(context, plan)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if killed_in:
            patch.setattr(incoming if killed_in == "settle" else Work, killed_in, killed)
            with pytest.raises(KeyboardInterrupt):
                stages.publish(context, plan)
        else:
            stages.publish(context, plan)
    again = stages.publish(context, plan)
    assert again["outcome"]["state"] == "ingested", "known would not be announced, and nobody would retrain"
    assert again["outcome"].keys() == {"state", "dataset", "digest", "ingest_id", "report_key"}
    assert again["log"] == ["few_test_cases femur: 1 test cases - expected 20 or more, or the gate will refuse"]
    assert ledger(context) == [("ingested", again["outcome"]["digest"])]
    assert folders(context) == []


def test_whole_run_that_is_cleared_looks_again(context: Context, source: Path) -> None:
    mask = source / "train" / "targets" / "A.nii.gz"
    there = mask.read_bytes()
    mask.unlink()
    for state in ("refused", "ingested", "known"):
        plan = planned(context, source)
        convert_all(context, plan)
        assert stages.publish(context, plan)["outcome"]["state"] == state
        mask.write_bytes(there)


# ---- drops


def test_drop_that_changed_while_it_was_fetched_is_left_to_a_later_look(context: Context, tmp_path: Path) -> None:
    old = drop(context, tmp_path / "one")
    new = drop(context, tmp_path / "two", F="train")
    plan = stages.plan(context, old, ASKED, "run-1")
    assert (plan["changed"], plan["parts"], folders(context)) == (True, [], [])
    result = stages.publish(context, plan)
    assert (result["outcome"], len(result["log"])) == ({"state": "changed"}, 1)
    assert look_for_incoming(context) == [new]


def test_drop_that_went_away_is_left_alone(context: Context, tmp_path: Path) -> None:
    row = drop(context, tmp_path / "one")
    context.store.delete(row["key"])
    assert stages.plan(context, row, ASKED, "run-1")["changed"] is True
    assert folders(context) == []


def test_drop_with_an_impossible_name_is_refused_and_settled(context: Context) -> None:
    context.store.put_named(b"x", "incoming/Not A Name/v1.zip")
    (row,) = look_for_incoming(context)
    plan = stages.plan(context, row, ASKED, "run-1")
    assert convert_all(context, plan) == []
    result = stages.publish(context, plan)
    assert (result["outcome"]["state"], result["log"][0].split()[0]) == ("refused", "not_ingestible")
    assert ledger(context) == [("refused", None)]
    assert look_for_incoming(context) == []


def test_source_of_the_form_that_is_not_there_fails_the_task(context: Context, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        planned(context, tmp_path / "none")


def test_planning_removes_what_was_forgotten(context: Context, source: Path) -> None:
    forgotten = planned(context, source, "run-0")["ingest_id"]
    plan = planned(replace(context, now=lambda: datetime.now(UTC) + timedelta(days=3)), source)
    assert forgotten not in folders(context)
    assert plan["ingest_id"] in folders(context)


# ---- what people are told


def test_source_that_is_refused_at_night_is_told(context: Context, source: Path) -> None:
    next((source / "train" / "targets").iterdir()).unlink()
    with webhook() as hook:
        given = {"notify_urls": SecretStr(hook.url)}
        told = replace(context, settings=context.settings.model_copy(update=given))
        plan = planned(told, source)
        convert_all(told, plan)
        assert stages.publish(told, plan)["outcome"]["state"] == "refused"
        assert hook.titles == ["A version of femur was refused"]
