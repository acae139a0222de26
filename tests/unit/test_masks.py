"""Masks: what is femur in a label picture, and what annotated parts come to in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco  # type: ignore[import-untyped]

from femur_tasks.dataset import masks
from femur_tasks.dataset.layouts import Run, Shape, Shapes
from femur_tasks.dataset.masks import femur_of_labels, foreground_values, rasterised
from femur_tasks.dataset.problems import Faulty

ONE = frozenset({1})
HALF = np.array([[0, 0, 1, 1]] * 4, bool)


def labels(*rows: list[float], dtype: str = "uint8") -> np.ndarray[Any, Any]:
    return np.array(rows, dtype)


# label pictures


@pytest.mark.parametrize(
    ("picture", "femur", "expected"),
    [
        (labels([0, 1, 2]), {1}, [0, 1, 0]),
        (labels([0, 1, 2]), {1, 2}, [0, 1, 1]),
        (labels([0, 1, 2, 3]), {1, 3, 9}, [0, 1, 0, 1]),
        (labels([0, 2, 2]), {1}, [0, 0, 0]),
        (labels([0, 1, 1]), {2}, [0, 0, 0]),
        (labels([0, 0, 0]), {1}, [0, 0, 0]),
        (labels([0, 255, 0]), {1}, [0, 1, 0]),
        (labels([255, 255, 255]), {7}, [1, 1, 1]),
        (labels([0, 255, 0]), {255}, [0, 1, 0]),
        (labels([0, 255, 2]), {1}, [0, 0, 0]),
        (labels([0, 255, 1]), {1}, [0, 0, 1]),
        (labels([0, 255, 2]), {255}, [0, 1, 0]),
        (labels([0, 300, 2], dtype="int32"), {300}, [0, 1, 0]),
        (labels([0, 1, 2], dtype="float64"), {1}, [0, 1, 0]),
        (labels([0, 255, 0], dtype="float32"), {1}, [0, 1, 0]),
        (labels([0, 1, 1], dtype="float32"), {1}, [0, 1, 1]),
        (labels([0, 1, 1], dtype="float32"), {2}, [0, 0, 0]),
        (labels([0, 1, 1], dtype="bool"), {1}, [0, 1, 1]),
        (labels([5, 0, 7]), {0}, [0, 1, 0]),
    ],
    ids=[
        *["one class of two", "both", "three asked for", "ilium alone", "another class as 1", "empty", "0 and 255"],
        *[
            "255 everywhere",
            "255 by number",
            "255 beside a class",
            "255 beside the femur",
            "255 asked for",
            "above 255",
        ],
        *["whole floats", "float 255", "float 1", "float 1 of another class", "truth values", "femur as 0"],
    ],
)
def test_femur_of_class_numbers(picture: np.ndarray[Any, Any], femur: set[int], expected: list[int]) -> None:
    mask, faults = femur_of_labels(picture, frozenset(femur))
    assert (mask.dtype, mask.tolist(), faults) == (np.bool_, [[bool(value) for value in expected]], [])


def test_soft_mask_is_femur_from_one_half_on() -> None:
    mask, faults = femur_of_labels(labels([0, 0.25, 0.5, 1], dtype="float32"), frozenset({3}))
    assert mask.tolist() == [[False, False, True, True]]
    assert [fault[0] for fault in faults] == ["soft_mask"]


@pytest.mark.parametrize(
    ("picture", "code"),
    [
        (labels([0, 1.5, 2], dtype="float32"), "mask_values"),
        (labels([0, 0.5, 2], dtype="float32"), "mask_values"),
        (labels([-0.1, 0.5, 1], dtype="float32"), "mask_values"),
        (labels([0, -1, 1], dtype="int16"), "mask_values"),
        (labels([0, 1, 70_000], dtype="int32"), "mask_values"),
        (labels([0, np.nan, 1], dtype="float32"), "not_finite"),
        (labels([0, np.inf, 1], dtype="float64"), "not_finite"),
        (labels([0, 1, 1], dtype="complex64"), "mask_values"),
        (np.arange(256, dtype="uint8").reshape(16, 16), "mask_values"),
    ],
    ids=["fractions", "a half beside 2", "below 0", "negative", "too high", "NaN", "Inf", "complex", "grey values"],
)
def test_picture_that_holds_no_class_numbers_is_refused(picture: np.ndarray[Any, Any], code: str) -> None:
    mask, faults = femur_of_labels(picture, ONE)
    assert ([fault[0] for fault in faults], mask.any(), mask.shape) == ([code], False, picture.shape)
    assert foreground_values(picture) == frozenset()


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (labels([0, 1, 6], [0, 6, 1]), {1, 6}),
        (labels([0, 255, 0]), {255}),
        (labels([0, 0, 0]), set()),
        (labels([0, 1, 1], dtype="bool"), {1}),
        (labels([0, 2, 3], dtype="float64"), {2, 3}),
        (labels([0, 0.5, 1], dtype="float32"), {1}),
        (np.zeros((0, 3), "uint8"), set()),
    ],
    ids=["classes", "255", "empty", "truth values", "whole floats", "soft", "no pixel"],
)
def test_foreground_values_are_those_above_the_background(picture: np.ndarray[Any, Any], expected: set[int]) -> None:
    assert foreground_values(picture) == expected
    assert all(type(value) is int for value in foreground_values(picture))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=6), st.booleans())
def test_every_value_is_seen_in_any_order_of_memory(rows: list[list[int]], transposed: bool) -> None:
    picture = np.asfortranarray(labels(*rows)) if transposed else labels(*rows)
    assert foreground_values(picture) == {value for row in rows for value in row} - {0}


# annotated parts


def outline(*points: tuple[float, float]) -> Shape:
    return Shape(1, (np.array(points, np.float64).reshape(-1, 2),))


def box(left: float, top: float, right: float, bottom: float, label: int = 1) -> Shape:
    return Shape(label, outline((left, top), (right, top), (right, bottom), (left, bottom)).outlines_xy)


def run(*counts: int, text: str = "", size: tuple[int, int] = (4, 4)) -> Shape:
    return Shape(1, run=Run(*size, text or counts))


def test_outline_fills_the_pixels_inside_x_to_the_right_and_y_down() -> None:
    mask = rasterised(Shapes((box(1, 0, 4, 2),)), 3, 5, ONE)
    assert mask.astype(int).tolist() == [[0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 0, 0]]
    assert mask.dtype == np.bool_


@pytest.mark.parametrize(
    "parts",
    [
        (box(2, 0, 4, 4),),
        (box(2, 0, 3, 4), box(3, 0, 4, 4)),
        (box(2, 0, 4, 3), box(2, 1, 4, 4), box(2, 2, 3, 3)),
        (Shape(1, box(2, 0, 3, 4).outlines_xy + box(3, 0, 4, 4).outlines_xy),),
        (box(2, 0, 4, 4), box(0, 0, 4, 4, label=2)),
        (box(2, 0, 7, 4),),
        (run(8, 8),),
        (run(8, 4, 0, 4),),
        (run(text="88"),),
        (run(8, 4, 4), box(2, 1, 4, 4), box(3, 0, 4, 4)),
    ],
    ids=[
        *[
            "one",
            "side by side",
            "overlapping",
            "two outlines of one part",
            "another class is left out",
            "over the edge",
        ],
        *["runs", "runs with an empty one", "compressed runs", "runs and outlines"],
    ],
)
def test_mask_is_the_union_of_the_femurs_parts(parts: tuple[Shape, ...]) -> None:
    assert np.array_equal(rasterised(Shapes(parts, size_hw=(4, 4)), 4, 4, ONE), HALF)


def test_relative_outline_is_scaled_with_the_picture() -> None:
    parts = (box(0.5, 0, 1, 1),)
    assert np.array_equal(rasterised(Shapes(parts, relative=True), 4, 4, ONE), HALF)
    assert rasterised(Shapes(parts, relative=True), 10, 20, ONE)[:, 10:].all()
    assert not rasterised(Shapes(parts, relative=True), 10, 20, ONE)[:, :10].any()


@pytest.mark.parametrize("parts", [(), (box(0, 0, 4, 4, label=2),)], ids=["no parts", "none of the femur"])
def test_picture_without_femur_is_an_empty_mask(parts: tuple[Shape, ...]) -> None:
    mask = rasterised(Shapes(parts), 4, 6, ONE)
    assert (mask.shape, mask.any()) == ((4, 6), False)


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.data())
def test_compressed_runs_are_read_as_coco_writes_them(height: int, width: int, data: st.DataObject) -> None:
    from pycocotools.mask import frPyObjects

    bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    counts, last = [0], False
    for bit in bits:
        if bit != last:
            counts.append(0)
        counts[-1], last = counts[-1] + 1, bit
    text = frPyObjects({"size": [height, width], "counts": counts}, height, width)["counts"].decode()
    expected = np.array(bits).reshape(width, height).T
    for given_counts in (text, tuple(counts)):
        shapes = Shapes((Shape(1, run=Run(height, width, given_counts)),))
        assert np.array_equal(rasterised(shapes, height, width, ONE), expected)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (run(8, 7), "2 runs that do not make a picture"),
        (run(8, 9), "2 runs that do not make a picture"),
        (run(20, -4), "2 runs that do not make a picture"),
        (run(10**30), "1 runs that do not make a picture"),
        (run(), "0 runs that do not make a picture"),
        (run(8, 8, size=(2, 8)), "a run-length mask of 8 x 2 px"),
        (run(text="8"), "1 runs that do not make a picture"),
        (run(text="8P"), "runs that are no compressed text"),
        (run(text="8\0"), "runs that are no compressed text"),
        (run(text="8é"), "runs that are no compressed text"),
        (run(text="oooooooo0"), "a run of over 30 bits"),
        (outline((0, 0), (4, 4)), "an outline of 2 points"),
        (outline(), "an outline of 0 points"),
        (outline((0, 0), (4, 4), (np.nan, 1)), "NaN or Inf as a coordinate"),
        (outline((0, 0), (4, 4), (np.inf, 1)), "NaN or Inf as a coordinate"),
        (outline((0, 0), (1e12, 4), (4, 4)), "an outline far outside the picture"),
        (outline((0, 0), (4, -5), (4, 4)), "an outline far outside the picture"),
    ],
    ids=[
        *[
            "sum too small",
            "sum too large",
            "negative run",
            "huge run",
            "no runs",
            "another size",
            "one compressed run",
        ],
        *["text cut off", "zero byte", "no ASCII", "run without end", "two points", "no point", "NaN", "Inf"],
        *["far to the right", "far above"],
    ],
)
def test_part_that_is_no_outline_of_the_picture_is_refused(part: Shape, text: str) -> None:
    with pytest.raises(Faulty) as caught:
        rasterised(Shapes((part,)), 4, 4, ONE)
    assert (caught.value.code, caught.value.found) == ("bad_annotations", text)


def test_annotations_of_another_size_are_a_mismatch() -> None:
    with pytest.raises(Faulty, match="annotations of 5 x 4 px, a picture of 4 x 4 px") as caught:
        rasterised(Shapes((), size_hw=(4, 5)), 4, 4, ONE)
    assert caught.value.code == "size_mismatch"


def test_too_many_points_are_refused() -> None:
    many = Shape(1, (np.zeros((masks.MAX_POINTS + 1, 2)),))
    with pytest.raises(Faulty, match="2000001 points"):
        rasterised(Shapes((many,)), 4, 4, ONE)


def test_outlines_that_go_to_and_fro_without_end_are_refused() -> None:
    zigzag = Shape(1, (np.tile([[0.0, 0.0], [4000.0, 4000.0]], (1000, 1)),))
    with pytest.raises(Faulty, match="outlines of 8000000 px"):
        rasterised(Shapes((zigzag,)), 4000, 4000, ONE)


def test_thousands_of_parts_are_merged_in_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    gone_through, merge = [], coco.merge

    def counted(parts: list[dict[str, bytes]]) -> dict[str, bytes]:
        gone_through.append(sum(len(part["counts"]) for part in parts))
        return merge(parts)  # type: ignore[no-any-return]

    monkeypatch.setattr(coco, "merge", counted)
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1990, (20_000, 2))
    parts = tuple(box(x, y, x + 9, y + 9) for x, y in corners)
    mask = rasterised(Shapes(parts), 2000, 2000, ONE)
    outlines = [outline.ravel() for part in parts for outline in part.outlines_xy]
    alone = sum(len(found["counts"]) for xy in outlines for found in coco.frPyObjects([xy], 2000, 2000))
    assert sum(gone_through) <= 15 * alone  # in pairs, on 15 floors; one after another, 3,000 parts come to 1,380
    assert 0.3 < mask.mean() < 0.4  # 1 - exp(-20,000 * 81 / 2,000^2) = 0.333
