"""The work folder: a plan comes back as it was, results are whole or not there, and what is forgotten goes."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from femur_tasks.dataset.layouts.layout import CaseFiles
from femur_tasks.dataset.problems import Problem
from femur_tasks.dataset.work import Plan, Work, remove_forgotten

NOW = datetime(2026, 3, 3, 2, 0, 0, 123456, tzinfo=UTC)
FULL = Plan(
    dataset="hip",
    source="https://tool.example/x.zip",
    folder="/somewhere/source",
    size=256,
    layout="flat",
    femur_class="FEMUR (1)",
    femur=(1, 3),
    assumed=True,
    patient_pattern=r"^(P\d+)_",
    classes={0: "background", 1: "FEMUR"},
    cases={"B": "train", "A": None, "Käse/2": "test"},
    chunks=((0, 2), (2, 3)),
    problems=(Problem("missing_partner", "C", "only its image", "its mask"), Problem("one_femur", "A", "x", "y", True)),
    allow=("burned_in", "unreadable"),
    standing={"model": "femur", "budget": "nightly", "femur_class": None, "patient_pattern": r"^(P\d+)_"},
    started_at=NOW,
)
EMPTY = replace(FULL, femur=(), classes=None, cases={}, chunks=(), problems=(), allow=(), standing={"model": ""})


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work", "one")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("plan", [FULL, EMPTY, replace(FULL, classes={})], ids=["full", "empty", "no classes"])
def test_plan_comes_back_as_it_was(work: Work, tmp_path: Path, plan: Plan) -> None:
    assert work.plan() is None
    work.keep(plan)
    found = Work(tmp_path / "work", "one").plan()
    assert found == plan
    assert found is not None
    assert list(found.cases) == list(plan.cases), "the order numbers the converted files"


def test_plan_is_replaced_whole(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    work.keep(FULL)

    def killed(path: Path, text: str) -> None:
        path.write_bytes(text[: len(text) // 2].encode())
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        work.keep(EMPTY)
    assert work.plan() == FULL


def test_folders_are_their_owners_alone(work: Work) -> None:
    old = os.umask(0)
    try:
        folder = work.empty_folder("source")
        work.jobs(FULL, ())
    finally:
        os.umask(old)
    assert {mode(folder), *(mode(path) for path in (work.folder, *work.folder.iterdir()))} == {0o700}


def test_empty_folder_is_empty_again(work: Work) -> None:
    folder = work.empty_folder("source")
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("left by a killed try")
    assert list(work.empty_folder("source").iterdir()) == []


def test_each_case_of_the_plan_has_its_file_and_no_other_has(work: Work) -> None:
    def files(case_id: str) -> CaseFiles:
        return CaseFiles(case_id, case_id, None, Path(f"{case_id}.png"), Path(f"{case_id}.mask"))

    paths = work.converted(FULL)
    assert [(case_id, path.name) for case_id, path in paths.items()] == [
        ("B", "000000.safetensors"),
        ("A", "000001.safetensors"),
        ("Käse/2", "000002.safetensors"),
    ]
    jobs = work.jobs(FULL, (files(case_id) for case_id in ("Käse/2", "B", "new")))
    assert [(job.files.case_id, job.out) for job in jobs] == [("Käse/2", paths["Käse/2"]), ("B", paths["B"])]
    assert paths["B"].parent.is_dir()


def test_removed_folder_leaves_its_neighbour(work: Work, tmp_path: Path) -> None:
    other = Work(tmp_path / "work", "two")
    other.keep(FULL)
    work.keep(FULL)
    work.remove()
    work.remove()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["two"]


def aged(path: Path, hours: float) -> None:
    then = (NOW - timedelta(hours=hours)).timestamp()
    os.utime(path, (then, then))


@pytest.mark.parametrize(
    ("folder_hours", "plan_hours", "stays"),
    [(47.9, 47.9, True), (48.1, 48.1, False), (100, 1, True), (1, 100, True), (100, 49, False)],
    ids=["young", "old", "plan touched", "folder touched", "both old"],
)
def test_folder_is_forgotten_when_nothing_touched_it_for_two_days(
    work: Work, tmp_path: Path, folder_hours: float, plan_hours: float, stays: bool
) -> None:
    work.keep(FULL)
    aged(work.folder / "plan.json", plan_hours)
    aged(work.folder, folder_hours)
    remove_forgotten(tmp_path / "work", NOW)
    assert work.folder.exists() is stays


def test_only_the_forgotten_go(work: Work, tmp_path: Path) -> None:
    old = Work(tmp_path / "work", "old")
    source = old.empty_folder("source")
    (source / "picture").write_text("of a patient")
    for path in (source, old.folder):
        aged(path, 72)
    aged(work.folder, 2)
    remove_forgotten(tmp_path / "work", NOW)
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["one"]


def test_nothing_is_forgotten_where_nothing_is(tmp_path: Path) -> None:
    remove_forgotten(tmp_path / "none", NOW)
    assert not (tmp_path / "none").exists()


def test_plan_is_json_that_people_can_read(work: Work) -> None:
    work.keep(FULL)
    told = json.loads((work.folder / "plan.json").read_text())
    assert (told["dataset"], told["cases"]["A"], told["problems"][0]["code"]) == ("hip", None, "missing_partner")
    assert [path.name for path in work.folder.iterdir()] == ["plan.json"], "and nothing half written beside it"
