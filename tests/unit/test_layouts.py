"""Layouts: which files belong together, and what is said of those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from femur_tasks.dataset.layouts import find_cases


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def said(folder: Path) -> list[tuple[str, str]]:
    return [(problem.code, problem.case_id) for problem in find_cases(folder)[1]]


@pytest.mark.parametrize("top", ["", "export", "a/b/c"], ids=["no top folder", "one", "three"])
@pytest.mark.parametrize(
    ("folder", "split"),
    [("train", "train"), ("valid", "val"), ("val", "val"), ("test", "test"), ("Train", "train"), ("day1", None)],
)
@pytest.mark.parametrize("pair", [("imgs", "targets"), ("images", "labels")], ids=["reference", "flat"])
def test_split_is_the_folder_round_the_pair(
    tmp_path: Path, top: str, folder: str, split: str | None, pair: tuple[str, str]
) -> None:
    names = [str(Path(top, folder, part, "HIP_1.nii.gz")) for part in pair]
    cases, problems = find_cases(touch(tmp_path / "source", *names))
    assert problems == []
    assert [(case.case_id, case.split) for case in cases] == [("HIP_1", split)]
    assert (cases[0].image, cases[0].mask) == (tmp_path / "source" / names[0], tmp_path / "source" / names[1])


def test_flat_layout_says_no_split(tmp_path: Path) -> None:
    cases, problems = find_cases(touch(tmp_path, "images/b.nii", "labels/b.nii.gz", "images/a.nii", "labels/a.nii"))
    assert [(case.case_id, case.split) for case in cases] == [("a", None), ("b", None)]
    assert problems == []


def test_cases_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    names = [f"{split}/{part}/{i}.nii" for split, i in (("train", 3), ("test", 1)) for part in ("imgs", "targets")]
    assert [case.case_id for case in find_cases(touch(tmp_path, *names))[0]] == ["1", "3"]


def test_every_file_without_a_partner_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/imgs/a.nii", "train/targets/b.nii", "test/imgs/c.nii", "test/targets/c.nii")
    cases, problems = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["c"]
    assert [(problem.code, problem.case_id, problem.found, problem.expected) for problem in problems] == [
        ("missing_partner", "a", "only its image", "its mask in train/targets/"),
        ("missing_partner", "b", "only its mask", "its image in train/imgs/"),
    ]


@pytest.mark.parametrize("there", ["imgs", "targets"])
def test_missing_folder_leaves_every_case_without_its_partner(tmp_path: Path, there: str) -> None:
    touch(tmp_path, "train/imgs/a.nii", "train/targets/a.nii", f"test/{there}/b.nii", f"test/{there}/c.nii")
    assert said(tmp_path) == [("missing_partner", "b"), ("missing_partner", "c")]


@pytest.mark.parametrize(
    "names",
    [
        ["train/imgs/a.nii", "train/targets/a.nii", "test/imgs/a.nii", "test/targets/a.nii"],
        ["one/imgs/a.nii", "one/targets/a.nii", "images/a.nii", "labels/a.nii"],
        ["images/a.nii", "images/a.nii.gz", "labels/a.nii"],
        ["images/a.nii", "labels/a.nii", "labels/a.nii.gz"],
    ],
    ids=["two splits", "two layouts", "two images", "two masks"],
)
def test_id_that_is_claimed_twice_is_an_error(tmp_path: Path, names: list[str]) -> None:
    assert said(touch(tmp_path, *names)) == [("duplicate_case", "a")]


def test_files_of_the_operating_system_are_passed_over(tmp_path: Path) -> None:
    real = ["train/imgs/a.nii.gz", "train/targets/a.nii.gz"]
    noise = ["train/imgs/._a.nii.gz", "__MACOSX/train/imgs/._a.nii.gz", "__MACOSX/train/targets/._a.nii.gz"]
    touch(tmp_path, *real, *noise, "train/imgs/.DS_Store", "train/imgs/Thumbs.db", "README.md", "images/logo.png")
    cases, problems = find_cases(tmp_path)
    assert ([case.case_id for case in cases], problems) == (["a"], [])


def test_suffix_in_capitals_is_no_reason_to_lose_a_case(tmp_path: Path) -> None:
    cases, problems = find_cases(touch(tmp_path, "images/a.NII.GZ", "labels/a.nii.gz"))
    assert ([case.case_id for case in cases], problems) == (["a"], [])


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ([], "unknown_layout"),
        (["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], "unknown_layout"),
        (["a.nii.gz"], "unknown_layout"),
        (["train/images/a.jpg", "train/labels/a.txt"], "no_cases"),
    ],
    ids=["empty", "nnU-Net", "loose file", "YOLO"],
)
def test_source_of_another_layout_is_one_problem_that_shows_the_known_ones(
    tmp_path: Path, names: list[str], code: str
) -> None:
    cases, problems = find_cases(touch(tmp_path, *names))
    assert ([problem.code for problem in problems], cases) == ([code], [])


def test_folder_with_the_name_of_a_file_is_no_case(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii/x", "labels/a.nii/x", "images/b.nii", "labels/b.nii")
    assert [case.case_id for case in find_cases(tmp_path)[0]] == ["b"]
