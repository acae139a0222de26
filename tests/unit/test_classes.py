"""Classes: which of them are the femur, and that no number is ever taken for granted."""

from __future__ import annotations

import pytest

from femur_tasks.dataset.classes import FEMUR_NAMES, femur_numbers
from femur_tasks.dataset.problems import Faulty

PELVIS = {0: "background", 1: "FEMUR", 2: "ILIAK"}
SIDES = {3: "Left Femur", 5: "right_femur", 7: "sacrum"}


@pytest.mark.parametrize(
    ("classes", "asked", "values", "expected"),
    [
        (PELVIS, None, None, {1}),
        (PELVIS, "", None, {1}),
        (PELVIS, " , ", None, {1}),
        ({0: "femur", 1: "pubis"}, None, None, {0}),
        (SIDES, None, None, {3, 5}),
        ({4: "Proximal-Femur"}, None, None, {4}),
        ({4: "femoral head", 5: "femora"}, None, None, {5}),
        (PELVIS, "iliak", None, {2}),
        (PELVIS, "2", None, {2}),
        (SIDES, "LEFT-FEMUR", None, {3}),
        (SIDES, "left femur, RightFemur", None, {3, 5}),
        (SIDES, "7,left_femur", None, {3, 7}),
        ({1: "2", 2: "femur"}, "2", None, {1}),
        (None, None, frozenset({1}), {1}),
        (None, None, frozenset({255}), {255}),
        ({}, None, frozenset({4}), {4}),
        (None, "3", frozenset({1, 2, 3}), {3}),
        (None, "3,1", frozenset({1, 2, 3}), {1, 3}),
        (None, "3", None, {3}),
    ],
    ids=[
        *[
            "by name",
            "an empty word",
            "a lone comma",
            "number 0",
            "both sides",
            "with a hyphen",
            "parts of it are not it",
        ],
        *["another class asked for", "a number asked for", "a name in other letters", "two names", "number and name"],
        *[
            "a name that looks like a number",
            "only value",
            "only value 255",
            "a table without lines",
            "a value asked for",
        ],
        *["two values asked for", "values unknown"],
    ],
)
def test_femur_is_found(
    classes: dict[int, str] | None, asked: str | None, values: frozenset[int] | None, expected: set[int]
) -> None:
    assert femur_numbers(classes, asked, values) == expected


@pytest.mark.parametrize(
    ("classes", "asked", "values", "found"),
    [
        ({1: "hip", 2: "ILIAK"}, None, frozenset({1}), "classes 1 'hip', 2 'ILIAK'"),
        ({1: "bone"}, None, None, "classes 1 'bone'"),
        (PELVIS, "pubis", None, "classes 0 'background', 1 'FEMUR', 2 'ILIAK'"),
        (PELVIS, "9", frozenset({9}), "classes 0 'background', 1 'FEMUR', 2 'ILIAK'"),
        (PELVIS, "femur, pubis", None, "classes 0 'background', 1 'FEMUR', 2 'ILIAK'"),
        (None, None, frozenset({2, 1}), "no names, values 1, 2"),
        (None, None, frozenset(), "no names, values none"),
        (None, None, None, "no names, values none"),
        (None, "femur", frozenset({1}), "no names, values 1"),
        (None, "4", frozenset({1}), "no names, values 1"),
        (None, "-1", None, "no names, values none"),
        (None, "9" * 5000, None, "no names, values none"),
        ({number: f"c{number}" for number in range(22)}, "x", None, "19 'c19' and 2 more"),
    ],
    ids=[
        *["no femur among the names", "a single name is not enough", "name not there", "number not there"],
        *["one of two not there", "two values", "no value", "nothing known", "name without names", "value not there"],
        *["negative", "endless number", "many classes"],
    ],
)
def test_unknown_class_lists_those_that_there_are(
    classes: dict[int, str] | None, asked: str | None, values: frozenset[int] | None, found: str
) -> None:
    with pytest.raises(Faulty) as caught:
        femur_numbers(classes, asked, values)
    assert caught.value.code == "unknown_class"
    assert caught.value.found.endswith(found)


@pytest.mark.parametrize("name", FEMUR_NAMES)
def test_every_name_of_the_femur_counts_in_any_writing(name: str) -> None:
    assert femur_numbers({6: name.upper().replace(" ", "__")}, None, None) == {6}
