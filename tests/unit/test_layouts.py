"""Layouts: which files belong together, and what is said of those that do not."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from femur_tasks.dataset.classes import femur_numbers
from femur_tasks.dataset.layouts import LAYOUTS, Layout, Run, Shapes, find_cases
from femur_tasks.dataset.masks import femur_of_labels, foreground_values, rasterised
from femur_tasks.dataset.naming import Namer, compiled
from femur_tasks.dataset.problems import CODES
from femur_tasks.errors import FemurError

NAMER = Namer(b"key of the tests")
HASH = ("0123456789abcdef", "fedcba9876543210")
SIX = [f"HIP_{number:04}" for number in range(6)]
BY_SPLIT = ["train", "train", "train", "val", "val", "test"]


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def write(folder: Path, texts: dict[str, Any]) -> Path:
    """Files by name: texts as they are, and everything else as JSON."""
    for name, content in texts.items():
        touch(folder, name)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def found(folder: Path, layout: str | None = None, namer: Namer = NAMER) -> Layout:
    return find_cases(folder, namer, layout)


def said(folder: Path) -> list[tuple[str, str]]:
    return [(problem.code, problem.case_id) for problem in found(folder).problems]


def splits(layout: Layout) -> list[tuple[str, str | None]]:
    return [(case.case_id, case.split) for case in layout.cases]


# the samples, one a layout


def labels_of(path: Path) -> np.ndarray[Any, Any]:
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    return np.asarray(nibabel.load(path).dataobj).T


@pytest.mark.parametrize(
    ("sample", "name", "expected", "least"),
    [
        ("deck_imgs_targets", "reference", BY_SPLIT, 1.0),
        ("flat_images_labels", "flat", [None] * 6, 1.0),
        ("nnUNet_raw", "nnunet", ["train"] * 5 + ["test"], 1.0),
        ("Task501_Femur_decathlon", "decathlon", [None] * 5, 1.0),
        ("pelvis-phantom.v1i.coco-segmentation", "coco", BY_SPLIT, 0.994),
        ("pelvis-phantom.v1i.png-mask-semantic", "semantic", BY_SPLIT, 1.0),
        ("pelvis-phantom.v1i.yolov8", "yolo", BY_SPLIT, 0.993),
    ],
    ids=LAYOUTS,
)
@pytest.mark.parametrize("asked", [False, True], ids=["recognised", "named by a person"])
def test_sample_of_each_layout_gives_its_cases_and_their_masks(
    shared_data: Path, sample: str, name: str, expected: list[str | None], least: float, asked: bool
) -> None:
    samples = shared_data / "format_samples"
    layout = found(samples / sample, name if asked else None)
    assert layout.name == name
    assert splits(layout) == list(zip(SIX, expected, strict=False))
    unlabelled = [("unlabelled", "HIP_0005")] if name == "decathlon" else []
    assert [(problem.code, problem.case_id) for problem in layout.problems] == unlabelled
    values = [foreground_values(labels_of(case.mask)) for case in layout.cases if isinstance(case.mask, Path)]
    femur = femur_numbers(layout.classes, None, frozenset().union(*values) if values else None)
    for case in layout.cases:
        assert case.image.is_file()
        assert case.patient == case.case_id
        truth = labels_of(samples / "flat_images_labels" / "labels" / f"{case.case_id}.nii.gz") == 1
        if isinstance(case.mask, Shapes):
            mask = rasterised(case.mask, *truth.shape, femur)
        else:
            mask, faults = femur_of_labels(labels_of(case.mask), femur)
            assert faults == []
        assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) >= least


@pytest.mark.parametrize("sample", ["nnUNet_raw", "pelvis-phantom.v1i.yolov8", "deck_imgs_targets"])
def test_layout_that_a_person_names_is_the_only_one_tried(shared_data: Path, sample: str) -> None:
    layout = found(shared_data / "format_samples" / sample, "coco")
    assert (layout.name, layout.cases, [problem.code for problem in layout.problems]) == (
        "coco",
        (),
        ["unknown_layout"],
    )


def test_unknown_name_of_a_layout_is_misuse(tmp_path: Path) -> None:
    with pytest.raises(FemurError, match="Expected a layout, one of reference, flat"):
        found(tmp_path, "voc")


# pairs of folders


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
    layout = found(touch(tmp_path / "source", *names))
    assert layout.problems == ()
    assert layout.name == ("reference" if split else "flat")
    assert splits(layout) == [("HIP_1", split)]
    case = layout.cases[0]
    assert (case.image, case.mask) == (tmp_path / "source" / names[0], tmp_path / "source" / names[1])


def test_flat_layout_says_no_split(tmp_path: Path) -> None:
    layout = found(touch(tmp_path, "images/b.nii", "labels/b.nii.gz", "images/a.nii", "labels/a.nii"))
    assert splits(layout) == [("a", None), ("b", None)]
    assert (layout.name, layout.classes, layout.problems) == ("flat", None, ())


def test_pair_beside_the_split_folders_is_of_no_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/imgs/a.png", "train/targets/a.png", "more/images/b.png", "more/labels/b.png")
    assert splits(found(tmp_path)) == [("a", "train"), ("b", None)]


def test_person_who_says_flat_has_the_split_folders_forgotten(tmp_path: Path) -> None:
    touch(tmp_path, "train/imgs/a.png", "train/targets/a.png", "test/imgs/b.png", "test/targets/b.png")
    assert splits(found(tmp_path, "flat")) == [("a", None), ("b", None)]


def test_cases_come_in_the_order_of_their_ids(tmp_path: Path) -> None:
    names = [f"{split}/{part}/{i}.nii" for split, i in (("train", 3), ("test", 1)) for part in ("imgs", "targets")]
    assert [case.case_id for case in found(touch(tmp_path, *names)).cases] == ["1", "3"]


def test_every_file_without_a_partner_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/imgs/a.nii", "train/targets/b.nii", "test/imgs/c.nii", "test/targets/c.nii")
    layout = found(tmp_path)
    assert [case.case_id for case in layout.cases] == ["c"]
    assert [(problem.code, problem.case_id, problem.found, problem.expected) for problem in layout.problems] == [
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
        ["images/a.hdr", "images/a.img", "images/a.png", "labels/a.nii"],
    ],
    ids=["two splits", "two layouts", "two images", "two masks", "a header pair and a picture"],
)
def test_id_that_is_claimed_twice_is_an_error(tmp_path: Path, names: list[str]) -> None:
    assert said(touch(tmp_path, *names)) == [("duplicate_case", "a")]


def test_first_of_two_claims_is_kept(tmp_path: Path) -> None:
    touch(tmp_path, "valid/imgs/a.nii", "valid/targets/a.nii", "test/imgs/a.nii", "test/targets/a.nii")
    layout = found(tmp_path)
    assert splits(layout) == [("a", "test")]
    assert layout.problems[0].found == "also in test/imgs/"


def test_files_of_the_operating_system_are_passed_over(tmp_path: Path) -> None:
    real = ["train/imgs/a.nii.gz", "train/targets/a.nii.gz"]
    noise = ["train/imgs/._a.nii.gz", "__MACOSX/train/imgs/._a.nii.gz", "__MACOSX/train/targets/._a.nii.gz"]
    noise += ["__MACOSX/train/imgs/b.nii.gz", ".cache/images/c.png", "train/imgs/README", "train/imgs/Icon\r"]
    touch(tmp_path, *real, *noise, "train/imgs/.DS_Store", "train/imgs/Thumbs.db", "README.md", "images/logo.png")
    layout = found(tmp_path)
    assert ([case.case_id for case in layout.cases], layout.problems) == (["a"], ())


def test_suffix_in_capitals_is_no_reason_to_lose_a_case(tmp_path: Path) -> None:
    layout = found(touch(tmp_path, "images/a.NII.GZ", "labels/a.nii.gz"))
    assert ([case.case_id for case in layout.cases], layout.problems) == (["a"], ())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm"])
def test_pictures_of_every_format_are_cases(tmp_path: Path, suffix: str) -> None:
    layout = found(touch(tmp_path, f"images/a{suffix}", "labels/a.png"))
    assert ([case.image.suffix for case in layout.cases], layout.problems) == ([Path(f"a{suffix}").suffix], ())


def test_header_and_its_pixels_are_one_picture(tmp_path: Path) -> None:
    layout = found(touch(tmp_path, "images/a.hdr", "images/a.img", "labels/a.hdr", "labels/a.img"))
    assert (len(layout.cases), layout.problems) == (1, ())
    assert layout.cases[0].image.name == "a.hdr"


@pytest.mark.parametrize("name", ["IM-0001", "1.2.840.10008"], ids=["no suffix", "a UID"])
def test_dicom_needs_no_suffix(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"labels/{name}.png", "images/LICENSE")
    (tmp_path / "images" / name).write_bytes(bytes(128) + b"DICM")
    layout = found(tmp_path)
    assert ([case.case_id for case in layout.cases], layout.problems) == ([name], ())


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ([], "unknown_layout"),
        (["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], "unknown_layout"),
        (["a.nii.gz"], "unknown_layout"),
        (["images/README.md", "labels/README.md"], "unknown_layout"),
        (["train/images/a.jpg", "train/labels/a.txt"], "bad_annotations"),
        (["data.yaml"], "bad_annotations"),
    ],
    ids=["empty", "nnU-Net without its JSON", "loose file", "no pictures", "YOLO without its YAML", "YAML alone"],
)
def test_source_of_another_layout_is_one_problem(tmp_path: Path, names: list[str], code: str) -> None:
    layout = found(touch(tmp_path, *names))
    assert ([problem.code for problem in layout.problems], layout.cases) == ([code], ())


def test_unknown_layout_shows_the_known_ones(tmp_path: Path) -> None:
    assert found(tmp_path).problems[0].expected == f"one of {', '.join(LAYOUTS)}"


def test_folder_with_the_name_of_a_file_is_no_case(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.nii/x", "labels/a.nii/x", "images/b.nii", "labels/b.nii")
    assert [case.case_id for case in found(tmp_path).cases] == ["b"]


def test_link_that_leads_out_of_the_source_is_not_followed(tmp_path: Path) -> None:
    outside = touch(tmp_path / "outside", "a.nii", "more/b.nii")
    source = touch(tmp_path / "source", "images/c.nii", "labels/c.nii", "labels/a.nii")
    (source / "images" / "a.nii").symlink_to(outside / "a.nii")
    (source / "imgs").symlink_to(outside / "more")
    layout = found(source)
    assert splits(layout) == [("c", None)]
    assert [(problem.code, problem.case_id) for problem in layout.problems] == [("missing_partner", "a")]


def test_file_name_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    touch(tmp_path, "images/a\n.nii", "labels/a.nii")
    assert said(tmp_path) == [("unreadable", tmp_path.name)]


def test_folders_without_end_are_walked(tmp_path: Path) -> None:
    folders = [tmp_path]
    for _ in range(1200):
        folders.append(folders[-1] / "d")
        folders[-1].mkdir()
    try:
        assert said(tmp_path) == [("unknown_layout", tmp_path.name)]
    finally:  # what removes temporary folders goes down by recursion
        for folder in reversed(folders[1:]):
            folder.rmdir()


# names


def test_no_text_shows_a_file_name(tmp_path: Path) -> None:
    namer = Namer(b"key", compiled(r"^(?P<patient>[A-Z]+_[A-Z]+)"))
    touch(tmp_path, "MUELLER_ANNA/imgs/MUELLER_ANNA.png", "MUELLER_ANNA/targets/MUELLER_ANNA.png")
    touch(tmp_path, "imgs/MUELLER_ANNA.png", "targets/MUELLER_ANNA.png", "targets/MUELLER_EVA.png")
    layout = found(tmp_path, namer=namer)
    assert len(layout.problems) == 2
    assert "MUELLER" not in f"{[problem.as_dict() for problem in layout.problems]}{layout.cases[0].case_id}"
    assert layout.cases[0].patient == namer.pseudonym("MUELLER_ANNA")


def test_copies_of_one_original_share_its_patient(tmp_path: Path) -> None:
    stems = [f"HIP_1_png.rf.{text}" for text in HASH]
    touch(tmp_path, *(f"train/{part}/{stem}.png" for part in ("imgs", "targets") for stem in stems))
    layout = found(tmp_path)
    assert [(case.case_id, case.patient) for case in layout.cases] == [
        ("HIP_1.01234567", "HIP_1"),
        ("HIP_1.fedcba98", "HIP_1"),
    ]
    assert layout.problems == ()


def test_one_copy_twice_is_a_duplicate_all_the_same(tmp_path: Path) -> None:
    names = [
        f"{split}/{part}/HIP_1_png.rf.{HASH[0]}.png" for split in ("train", "test") for part in ("imgs", "targets")
    ]
    assert said(touch(tmp_path, *names)) == [("duplicate_case", "HIP_1")]


# tables of classes


@pytest.mark.parametrize("where", ["", "train/", "train/targets/"], ids=["top", "split folder", "mask folder"])
def test_table_names_the_classes_of_a_pair_layout(tmp_path: Path, where: str) -> None:
    touch(tmp_path, "train/imgs/a.png", "train/targets/a.png")
    write(tmp_path, {f"{where}_classes.csv": "Pixel Value, Class\r\n0, background\r\n1, left femur\r\n"})
    layout = found(tmp_path)
    assert (layout.name, layout.classes) == ("reference", {0: "background", 1: "left femur"})
    assert layout.problems == ()


def test_broken_line_of_a_table_is_told_and_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "labels/a.png")
    write(tmp_path, {"_classes.csv": "Pixel Value, Class\none, femur\n2,\n-1, hip\n\n3, femur\n3, pubis\n"})
    layout = found(tmp_path)
    assert layout.classes == {3: "femur"}
    assert [problem.found for problem in layout.problems] == [f"_classes.csv: line {line}" for line in (2, 3, 4, 7)]
    assert {problem.code for problem in layout.problems} == {"bad_annotations"}


def test_tables_that_disagree_are_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "train/imgs/a.png", "train/targets/a.png")
    write(tmp_path, {"train/_classes.csv": "1, femur\n2, pubis\n", "valid/_classes.csv": "1, pubis\n"})
    (problem,) = found(tmp_path).problems
    assert (problem.code, problem.found) == (
        "bad_annotations",
        "valid/_classes.csv: class 1 is 'pubis', elsewhere 'femur'",
    )


# nnU-Net


def nnunet_json(**fields: Any) -> dict[str, Any]:
    whole = {"channel_names": {"0": "XR"}, "labels": {"background": 0, "femur": 1}, "file_ending": ".png"}
    return {name: value for name, value in {**whole, **fields}.items() if value is not None}


def nnunet_source(folder: Path, *names: str, **fields: Any) -> Path:
    top = folder / "Dataset001_Femur"
    touch(top, "imagesTr/a_0000.png", "labelsTr/a.png", *names)
    write(top, {"dataset.json": nnunet_json(**fields)})
    return folder


def test_test_images_without_labels_are_a_warning_each(tmp_path: Path) -> None:
    layout = found(nnunet_source(tmp_path, "imagesTs/b_0000.png", "imagesTs/c_0000.png"))
    assert splits(layout) == [("a", "train")]
    assert [(problem.code, problem.case_id) for problem in layout.problems] == [
        ("unlabelled", "b"),
        ("unlabelled", "c"),
    ]
    assert not any(problem.is_error for problem in layout.problems)


def test_test_image_that_lacks_the_label_that_others_have_is_an_error(tmp_path: Path) -> None:
    layout = found(nnunet_source(tmp_path, "imagesTs/b_0000.png", "imagesTs/c_0000.png", "labelsTs/b.png"))
    assert splits(layout) == [("a", "train"), ("b", "test")]
    assert [(problem.code, problem.case_id) for problem in layout.problems] == [("missing_partner", "c")]


def test_second_channel_leaves_its_case_out(tmp_path: Path) -> None:
    layout = found(nnunet_source(tmp_path, "imagesTr/b_0000.png", "imagesTr/b_0001.png", "labelsTr/b.png"))
    assert splits(layout) == [("a", "train")]
    assert [(problem.code, problem.case_id, problem.found) for problem in layout.problems] == [
        ("wrong_shape", "b", "channels 0000, 0001")
    ]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"labels": {"background": 0, "both": [1, 2], "femur": 1}}, "label 'both' is a region of several classes"),
        ({"labels": {"femur": "1"}}, "label 'femur' is a text"),
        ({"labels": {"femur": True}}, "label 'femur' is a truth value"),
        ({"labels": ["femur"]}, "labels is a list"),
        ({"labels": None}, "labels is nothing"),
        ({"channel_names": ["XR"]}, "channel_names is a list"),
        ({"file_ending": None}, "file_ending is 'nothing'"),
        ({"file_ending": ""}, "file_ending is ''"),
        ({"file_ending": ".txt"}, "file_ending is '.txt'"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_fault_of_an_nnunet_description_is_named(tmp_path: Path, fields: dict[str, Any], text: str) -> None:
    layout = found(nnunet_source(tmp_path, **fields))
    assert (layout.name, [problem.code for problem in layout.problems]) == ("nnunet", ["bad_annotations"])
    assert text in layout.problems[0].found


def test_broken_description_beside_nnunet_folders_is_its_fault(tmp_path: Path) -> None:
    write(nnunet_source(tmp_path), {"Dataset001_Femur/dataset.json": '{"labels": }'})
    layout = found(tmp_path)
    assert [problem.found for problem in layout.problems] == ["dataset.json: no JSON at line 1, column 12"]


# Decathlon


def decathlon_source(folder: Path, **fields: Any) -> Path:
    touch(folder, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", "imagesTs/b.nii.gz", "labelsTs/b.nii.gz")
    case = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    whole = {"labels": {"0": "background", "1": "femur"}, "training": [case], "test": []}
    return write(folder, {"dataset.json": {**whole, **fields}})


def test_labelled_test_list_tells_the_splits(tmp_path: Path) -> None:
    case = {"image": "imagesTs/b.nii.gz", "label": "labelsTs/b.nii.gz"}
    layout = found(decathlon_source(tmp_path, test=[case]))
    assert (layout.name, splits(layout), layout.problems) == ("decathlon", [("a", "train"), ("b", "test")], ())


@pytest.mark.parametrize("entry", ["./imagesTs/b.nii.gz", {"image": "imagesTs/b.nii.gz"}], ids=["path", "object"])
def test_test_list_without_labels_tells_no_split(tmp_path: Path, entry: object) -> None:
    layout = found(decathlon_source(tmp_path, test=[entry]))
    assert splits(layout) == [("a", None)]
    assert [(problem.code, problem.case_id) for problem in layout.problems] == [("unlabelled", "b")]


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        ({"image": "../imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}, "bad_annotations"),
        ({"image": "/etc/a.nii.gz", "label": "labelsTr/a.nii.gz"}, "bad_annotations"),
        ({"image": "imagesTr/a.nii.gz", "label": "labelsTr/../../a.nii.gz"}, "bad_annotations"),
        ({"image": "C:\\a.nii.gz", "label": "labelsTr/a.nii.gz"}, "bad_annotations"),
        ({"image": "imagesTr/a\0.nii.gz", "label": "labelsTr/a.nii.gz"}, "bad_annotations"),
        ({"image": "imagesTr/a.txt", "label": "labelsTr/a.nii.gz"}, "bad_annotations"),
        ({"image": 1, "label": "labelsTr/a.nii.gz"}, "bad_annotations"),
        ({"image": "imagesTr/a.nii.gz"}, "bad_annotations"),
        ("imagesTr/a.nii.gz", "bad_annotations"),
        ([], "bad_annotations"),
        ({"image": "imagesTr/c.nii.gz", "label": "labelsTr/a.nii.gz"}, "missing_partner"),
        ({"image": "imagesTr/a.nii.gz", "label": "labelsTr/c.nii.gz"}, "missing_partner"),
        ({"image": f"imagesTr/{'a' * 5000}.nii.gz", "label": "labelsTr/a.nii.gz"}, "missing_partner"),
    ],
    ids=[
        *["above", "absolute", "above in the middle", "drive", "zero byte", "no picture", "number", "no label", "text"],
        *["list", "image not there", "mask not there", "endless name"],
    ],
)
def test_listed_case_must_lie_inside_the_folder(tmp_path: Path, entry: object, code: str) -> None:
    layout = found(decathlon_source(tmp_path, training=[entry]))
    assert (layout.name, layout.cases, [problem.code for problem in layout.problems]) == ("decathlon", (), [code])


@pytest.mark.parametrize(
    "fields",
    [{"labels": ["femur"]}, {"labels": {"femur": 1}}, {"labels": {"1": 1}}, {"test": {}}, {"training": None}],
    ids=json.dumps,
)
def test_fault_of_a_decathlon_description_is_named(tmp_path: Path, fields: dict[str, Any]) -> None:
    layout = found(decathlon_source(tmp_path, **fields))
    assert (layout.name, [problem.code for problem in layout.problems]) == ("decathlon", ["bad_annotations"])


def test_case_that_is_listed_twice_is_kept_once(tmp_path: Path) -> None:
    case = {"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}
    layout = found(decathlon_source(tmp_path, training=[case, case]))
    assert (len(layout.cases), [problem.code for problem in layout.problems]) == (1, ["duplicate_case"])


# COCO


SQUARE = [1, 1, 3, 1, 3, 3, 1, 3]
CATEGORIES = [
    {"id": 0, "name": "hip", "supercategory": "none"},
    {"id": 1, "name": "femur", "supercategory": "hip"},
    {"id": 2, "name": "pubis", "supercategory": "hip"},
]


def coco(*segmentations: Any, **fields: Any) -> dict[str, Any]:
    """A file of one image a.png of 4 x 4 px, with an annotation a segmentation."""
    annotations = [
        {"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": drawn}
        for number, drawn in enumerate(segmentations)
    ]
    images = [{"id": 7, "file_name": "a.png", "height": 4, "width": 4}]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES, **fields}


def coco_source(folder: Path, tree: Any) -> Path:
    return write(touch(folder, "train/a.png"), {"train/_annotations.coco.json": tree})


def test_polygons_and_runs_are_parts_of_one_mask(tmp_path: Path) -> None:
    counts = {"size": [4, 4], "counts": [0, 1, 15]}
    text = {"size": [4, 4], "counts": "01?"}
    layout = found(coco_source(tmp_path, coco([SQUARE, SQUARE], counts, text)))
    assert layout.problems == ()
    assert layout.classes == {1: "femur", 2: "pubis"}
    mask = layout.cases[0].mask
    assert isinstance(mask, Shapes)
    assert (mask.size_hw, mask.relative) == ((4, 4), False)
    assert [(part.label, len(part.outlines_xy), part.run) for part in mask.parts] == [
        (1, 2, None),
        (1, 0, Run(4, 4, (0, 1, 15))),
        (1, 0, Run(4, 4, "01?")),
    ]
    assert mask.parts[0].outlines_xy[0].tolist() == [[1, 1], [3, 1], [3, 3], [1, 3]]


def test_image_without_annotations_is_a_case_without_parts(tmp_path: Path) -> None:
    layout = found(coco_source(tmp_path, coco()))
    assert ([case.mask for case in layout.cases], layout.problems) == ([Shapes((), False, (4, 4))], ())


def test_dummy_class_that_is_annotated_is_a_class(tmp_path: Path) -> None:
    tree = coco(SQUARE, annotations=[{"id": 1, "image_id": 7, "category_id": 0, "segmentation": [SQUARE]}])
    assert found(coco_source(tmp_path, tree)).classes == {0: "hip", 1: "femur", 2: "pubis"}


@pytest.mark.parametrize("picture", ["a.png", "images/a.png"], ids=["beside", "in images"])
@pytest.mark.parametrize("name", ["_annotations.coco.json", "instances.json"])
def test_single_file_at_the_top_says_no_split(tmp_path: Path, name: str, picture: str) -> None:
    layout = found(write(touch(tmp_path, f"export/{picture}"), {f"export/{name}": coco([SQUARE])}))
    assert (layout.name, splits(layout), layout.problems) == ("coco", [("a", None)], ())


def test_pictures_in_sub_folders_are_found(tmp_path: Path) -> None:
    touch(tmp_path, "train/x/y/a.png")
    tree = coco([SQUARE], images=[{"id": 7, "file_name": "x\\y/a.png"}])
    layout = found(write(tmp_path, {"train/_annotations.coco.json": tree}))
    assert (splits(layout), layout.problems) == ([("a", "train")], ())
    assert layout.cases[0].mask == Shapes(layout.cases[0].mask.parts, False, None)  # type: ignore[union-attr]


def test_listed_image_that_is_missing_and_image_that_is_not_listed(tmp_path: Path) -> None:
    write(touch(tmp_path, "train/b.png", "train/sub/c.png"), {"train/_annotations.coco.json": coco([SQUARE])})
    assert sorted(said(tmp_path)) == [("missing_partner", "a"), ("unlabelled", "b"), ("unlabelled", "c")]


@pytest.mark.parametrize(
    "other",
    [[{"id": 1, "name": "pubis"}], [{"id": 3, "name": "femur"}]],
    ids=["one number, two names", "one name, two numbers"],
)
def test_splits_that_disagree_about_a_class_are_an_error(tmp_path: Path, other: list[Any]) -> None:
    coco_source(tmp_path, coco([SQUARE]))
    touch(tmp_path, "valid/b.png")
    tree = coco(images=[{"id": 1, "file_name": "b.png"}], categories=other)
    write(tmp_path, {"valid/_annotations.coco.json": tree})
    assert said(tmp_path) == [("bad_annotations", tmp_path.name)]


FAULTS: dict[str, tuple[Any, str]] = {
    "list": ([], "a list"),
    "no categories": (coco(categories=None), "categories is nothing"),
    "images as object": (coco(images={}), "images is an object"),
    "image as text": (coco(images=["a.png"]), "image 1: id is nothing"),
    "image id as text": (coco(images=[{"id": "7", "file_name": "a.png"}]), "image 1: id is a text"),
    "image id twice": (coco(images=[{"id": 7, "file_name": "a.png"}] * 2), "image 2: an id that another one has"),
    "path above": (coco(images=[{"id": 7, "file_name": "../train/a.png"}]), "image 1: a path that leads out"),
    "path absolute": (coco(images=[{"id": 7, "file_name": "/a.png"}]), "image 1: a path that leads out"),
    "lone surrogate": (coco(images=[{"id": 7, "file_name": "\ud800.png"}]), "image 1: a path that leads out"),
    "no path": (coco(images=[{"id": 7}]), "image 1: nothing as a path"),
    "no picture": (coco(images=[{"id": 7, "file_name": "a.exe"}]), "image 1: file_name is that of no picture"),
    "half a size": (coco(images=[{"id": 7, "file_name": "a.png", "height": 4}]), "image 1: width is nothing"),
    "size of nothing": (coco(images=[{"id": 7, "file_name": "a.png", "height": 4, "width": 0}]), "a size of 0 x 4 px"),
    "class id twice": (coco(categories=[{"id": 1, "name": "a"}] * 2), "category 2: an id that another one has"),
    "class id as truth": (coco(categories=[{"id": True, "name": "a"}]), "category 1: id is a truth value"),
    "class without name": (coco(categories=[{"id": 1}]), "category 1: name is nothing"),
    "unknown class": (
        coco(annotations=[{"image_id": 7, "category_id": 9, "segmentation": [SQUARE]}]),
        "category_id is no id",
    ),
    "unknown image": (coco(annotations=[{"image_id": 8, "category_id": 1}]), "annotation 1: image_id is no id"),
    "image id as list": (coco(annotations=[{"image_id": [], "category_id": 1}]), "annotation 1: image_id is a list"),
    "annotation as null": (coco(annotations=[None]), "annotation 1: image_id is nothing"),
    "box": (coco([]), "annotation 1: no outline"),
    "text as outline": (coco("1 1 3 1"), "annotation 1: segmentation is a text"),
    "flat list": (coco(SQUARE), "annotation 1: a polygon that is no list of numbers"),
    "text in a polygon": (coco([["1", 1, 2, 3, 4, 5]]), "annotation 1: a polygon that is no list of numbers"),
    "odd polygon": (coco([[1, 1, 3, 1, 3]]), "annotation 1: a polygon of 5 numbers"),
    "huge whole number": (coco([[10**400, 1, 3, 1, 3, 3]]), "annotation 1: a coordinate of hundreds of digits"),
    "runs without size": (coco({"counts": [16]}), "annotation 1: a run-length mask without its size"),
    "runs with half a size": (coco({"counts": [16], "size": [4]}), "annotation 1: a run-length mask without its size"),
    "runs as number": (coco({"counts": 16, "size": [4, 4]}), "annotation 1: counts is a whole number"),
    "run as fraction": (coco({"counts": [1.5], "size": [4, 4]}), "annotation 1: counts is a list"),
    "cut off": ('{"images": [', "no JSON at line 1"),
    "NaN": ('{"images": [NaN]}', "NaN as a number"),
    "field twice": ('{"images": [], "images": []}', "a field that is given twice"),
    "number without end": (f'{{"images": {"9" * 5000}}}', "a number that is too long"),
    "depth": ("[" * 200_000, "lists within lists without end"),
}


@pytest.mark.parametrize(("tree", "text"), FAULTS.values(), ids=FAULTS)
def test_fault_of_annotations_is_named(tmp_path: Path, tree: Any, text: str) -> None:
    layout = found(coco_source(tmp_path, tree))
    told = [problem.found for problem in layout.problems if problem.code == "bad_annotations"]
    assert layout.name == "coco"
    assert any(text in each for each in told), told
    assert all(each.startswith("train/_annotations.coco.json: ") for each in told)


def test_fault_of_an_annotation_names_its_case(tmp_path: Path) -> None:
    assert said(coco_source(tmp_path, coco([]))) == [("bad_annotations", "a")]


def test_twenty_faults_of_a_file_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    problems = found(coco_source(tmp_path, coco(*[[]] * 25))).problems
    assert len(problems) == 21
    assert problems[-1].found == "5 more faults in 1 annotation files"


def test_file_that_is_no_text_is_a_fault(tmp_path: Path) -> None:
    coco_source(tmp_path, "")
    (tmp_path / "train" / "_annotations.coco.json").write_bytes(b'{"images": "\xff"}')
    assert said(tmp_path) == [("bad_annotations", tmp_path.name)]


@pytest.mark.parametrize(
    "filling", ["1.5,", '{"a":1},', '{"a":{"b":[]}},'], ids=["numbers", "objects", "objects in objects"]
)
def test_json_that_would_fill_the_memory_is_not_parsed(tmp_path: Path, filling: str) -> None:
    folder = touch(tmp_path, "train/a.png") / "train"
    (folder / "_annotations.coco.json").write_text(f"[{filling * (62_000_000 // len(filling))}1]")
    assert said(tmp_path) == [("too_large", tmp_path.name)]


def peak_mb(folder: Path) -> tuple[str, int]:
    """What the reading of a source comes to, and the largest memory of a process that does nothing else."""
    script = r"""
import re, sys
from pathlib import Path
from femur_tasks.dataset.layouts import find_cases
from femur_tasks.dataset.naming import Namer
layout = find_cases(Path(sys.argv[1]), Namer(b"key"))
print(*(problem.code for problem in layout.problems), len(layout.cases), end=" ")
# of this program alone: getrusage also counts the process that it was forked from
print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1000)
"""
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True
    )
    told, peak = done.stdout.rsplit(maxsplit=1)
    return told, int(peak)


@pytest.mark.parametrize(
    ("points", "told"), [(10_000_000, "too_large 0"), (3_500_000, "1")], ids=["over 64 MiB", "largest that is read"]
)
def test_millions_of_points_take_bounded_memory(tmp_path: Path, points: int, told: str) -> None:
    head, tail = json.dumps(coco([["POINTS"]])).split('"POINTS"')
    touch(tmp_path, "train/a.png")
    with (tmp_path / "train" / "_annotations.coco.json").open("w") as file:
        file.write(head + ",".join(["123.4,567.8"] * points) + tail)
    known, peak = peak_mb(tmp_path)
    assert known == told
    assert peak < 700


# semantic masks


def test_image_and_mask_side_by_side_are_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "x/valid/a.jpg", "x/valid/a_mask.png", "x/valid/b.jpg", "x/test/c_mask.png", "x/logo.png")
    layout = found(write(tmp_path, {"x/_classes.csv": "Pixel Value, Class\n1, femur\n"}))
    assert (layout.name, splits(layout), layout.classes) == ("semantic", [("a", "val")], {1: "femur"})
    assert sorted((problem.code, problem.case_id) for problem in layout.problems) == [
        ("missing_partner", "b"),
        ("missing_partner", "c"),
    ]


def test_masks_without_a_table_of_classes_are_not_guessed_at(tmp_path: Path) -> None:
    assert said(touch(tmp_path, "valid/a.jpg", "valid/a_mask.png")) == [("unknown_layout", tmp_path.name)]


# YOLO


TRIANGLE = "0 0.1 0.1 0.9 0.1 0.5 0.9"


def yolo_source(folder: Path, lines: str = TRIANGLE, yaml: str = "names: [femur, pubis]") -> Path:
    touch(folder, "train/images/a.jpg")
    return write(folder, {"data.yaml": yaml, "train/labels/a.txt": lines})


@pytest.mark.parametrize(
    ("yaml", "classes"),
    [
        ("names: [femur, pubis]", {0: "femur", 1: "pubis"}),
        ("names:\n  0: femur\n  3: pubis\n", {0: "femur", 3: "pubis"}),
        ("names: [femur, no, 1]\ntrain: ../elsewhere/images", {0: "femur", 1: "no", 2: "1"}),
    ],
    ids=["list", "mapping", "words that YAML would turn into values"],
)
def test_classes_are_those_of_data_yaml(tmp_path: Path, yaml: str, classes: dict[int, str]) -> None:
    layout = found(yolo_source(tmp_path, yaml=yaml))
    assert (layout.name, layout.classes, splits(layout)) == ("yolo", classes, [("a", "train")])
    assert layout.problems == ()


def test_outlines_are_shares_of_the_picture(tmp_path: Path) -> None:
    mask = found(yolo_source(tmp_path, f"{TRIANGLE}\r\n\r\n1 0 0 1 0 1.05 -0.05\n")).cases[0].mask
    assert isinstance(mask, Shapes)
    assert (mask.relative, mask.size_hw) == (True, None)
    assert [(part.label, part.outlines_xy[0].tolist()) for part in mask.parts] == [
        (0, [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]),
        (1, [[0, 0], [1, 0], [1.05, -0.05]]),
    ]


@pytest.mark.parametrize(
    "folders", [("valid/images", "valid/labels"), ("images/val", "labels/val")], ids=["Roboflow", "Ultralytics"]
)
def test_split_of_a_yolo_case_is_its_folder(tmp_path: Path, folders: tuple[str, str]) -> None:
    touch(tmp_path, f"{folders[0]}/a.jpg", f"{folders[1]}/a.txt")
    layout = found(write(tmp_path, {"data.yaml": "names: [femur]\nval: ../x"}))
    assert (splits(layout), layout.problems) == ([("a", "val")], ())


def test_empty_label_file_is_a_case_without_parts(tmp_path: Path) -> None:
    layout = found(yolo_source(tmp_path, ""))
    assert ([case.mask for case in layout.cases], layout.problems) == ([Shapes((), relative=True)], ())


def test_image_without_label_file_lacks_its_partner_and_the_other_way_round(tmp_path: Path) -> None:
    touch(yolo_source(tmp_path), "train/images/b.jpg", "train/labels/c.txt")
    assert said(tmp_path) == [("missing_partner", "b"), ("missing_partner", "c")]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("0 0.5 0.5 0.1 0.1", "a box"),
        ("0 0.1 0.1 0.9 0.1 0.5", "5 coordinates"),
        ("0 0.5 0.5", "2 coordinates"),
        ("0", "0 coordinates"),
        ("2 0.1 0.1 0.9 0.1 0.5 0.9", "class '2'"),
        ("-1 0.1 0.1 0.9 0.1 0.5 0.9", "class '-1'"),
        ("femur 0.1 0.1 0.9 0.1 0.5 0.9", "class 'femur'"),
        ("0 0.1 0.1 1.06 0.1 0.5 0.9", "a coordinate of 1.06"),
        ("0 0.1 0.1 0.9 -0.06 0.5 0.9", "a coordinate of -0.06"),
        ("0 0.1 0.1 nan 0.1 0.5 0.9", "a coordinate of nan"),
        ("0 0.1 0.1 1e999 0.1 0.5 0.9", "a coordinate of inf"),
        ("0 0.1 0.1 x 0.1 0.5 0.9", "a word among the coordinates"),
    ],
)
def test_fault_of_a_line_names_case_and_line(tmp_path: Path, line: str, text: str) -> None:
    (problem,) = found(yolo_source(tmp_path, f"{TRIANGLE}\n{line}\n")).problems
    assert (problem.code, problem.case_id) == ("bad_annotations", "a")
    assert problem.found == f"train/labels/ of a: line 2: {text}"


@pytest.mark.parametrize(
    "yaml",
    [
        *[
            "",
            "names: 3",
            "names: []",
            "names: [[femur]]",
            "names: {a: femur}",
            "names: [a",
            "[" * 2000,
            "? [a]\n: b",
        ],
        "a: &a [x, x]\nb: &b [*a, *a]\nnames: *b",
        "names: &a [*a]",
        "names:\n  0: a\n  00: b",
    ],
    ids=[
        *["empty", "number", "no names", "list", "text as number", "broken", "depth", "list as key"],
        *["aliases", "alias of itself", "one number twice"],
    ],
)
def test_fault_of_data_yaml_is_one_problem(tmp_path: Path, yaml: str) -> None:
    assert said(yolo_source(tmp_path, yaml=yaml)) == [("bad_annotations", tmp_path.name)]


def test_bomb_of_aliases_does_not_go_off(tmp_path: Path) -> None:
    lines = [
        "a: &a {x: y}",
        *(f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
    ]
    assert said(yolo_source(tmp_path, yaml="\n".join([*lines, "names: *i"]))) == [("bad_annotations", tmp_path.name)]


@pytest.mark.parametrize(("name", "size"), [("data.yaml", 1 << 20), ("train/labels/a.txt", 4 << 20)])
def test_text_over_its_limit_is_too_large(tmp_path: Path, name: str, size: int) -> None:
    yolo_source(tmp_path)
    (tmp_path / name).write_bytes(b" " * (size + 1))
    assert [problem.code for problem in found(tmp_path).problems] == ["too_large"]


# which of two layouts


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "reference"),
        ({"data.yaml": "names: [femur]", "train/labels/a.txt": ""}, "yolo"),
        ({"train/_annotations.coco.json": coco()}, "coco"),
        ({"dataset.json": nnunet_json(), "imagesTr/x_0000.png": "", "labelsTr/x.png": ""}, "nnunet"),
        ({"dataset.json": {"training": [], "labels": {"1": "femur"}}}, "decathlon"),
        ({"dataset.json": {"made": "by hand"}, "notes.json": [1]}, "reference"),
        ({"valid/a.jpg": "", "valid/a_mask.png": "", "valid/_classes.csv": "1, femur"}, "semantic"),
    ],
    ids=["pairs", "YOLO", "COCO", "nnU-Net", "Decathlon", "JSON of something else", "semantic"],
)
def test_more_specific_layout_wins(tmp_path: Path, more: dict[str, Any], name: str) -> None:
    touch(tmp_path, "train/images/a.png", "train/labels/a.png")
    assert found(write(tmp_path, more)).name == name


# hostile input


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "images", "annotations", "labels", "segmentation"]), inner, max_size=4)
    ),
    max_leaves=20,
)
BYTES = st.one_of(
    st.binary(max_size=200),
    st.text(alphabet='[]{}:,"0123456789.-eE \nabimgeds', max_size=200).map(str.encode),
    TREES.map(lambda tree: json.dumps(tree).encode()),
    st.builds(
        lambda key, tree: json.dumps(coco([[]], **{key: [tree]})).encode(),
        st.sampled_from(["images", "annotations", "categories"]),
        TREES,
    ),
)
PLACES: dict[str, Callable[[Path], Path]] = {
    "train/_annotations.coco.json": lambda folder: coco_source(folder, coco()),
    "data.yaml": yolo_source,
    "train/labels/a.txt": yolo_source,
    "imagesTr/dataset.json": lambda folder: touch(folder, "imagesTr/imagesTr/a_0000.png"),
    "_classes.csv": lambda folder: touch(folder, "images/a.png", "labels/a.png"),
}


@pytest.mark.parametrize("place", PLACES)
@settings(derandomize=True, max_examples=40, deadline=None)
@given(content=BYTES)
def test_whatever_annotations_hold_only_problems_come_out(place: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = PLACES[place](Path(folder))
        (source / place).write_bytes(content)
        layout = found(source)
        assert layout.cases or layout.problems
        assert all(problem.code in CODES for problem in layout.problems)
