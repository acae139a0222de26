"""Likeness: pictures like the training cases are told from what is no AP pelvis of an adult."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from femur_tasks.dataset.intensity import to_grey
from femur_tasks.dataset.likeness import LEVEL, MIN_CASES, Likeness, hips, learned
from femur_tasks.dataset.pictures import read_labels, read_picture
from femur_tasks.dataset.resize import shrink_image, shrink_mask
from femur_tasks.phantom import make_case
from tests.radiographs import Array

SIZE, TRAINED, SEEN = 128, 20, 60
Case = tuple[Array, Array]


def small(image_hw: Array, mask_hw: Array) -> Case:
    return shrink_image(image_hw, SIZE), shrink_mask(mask_hw, SIZE).astype(bool)


@pytest.fixture(scope="module")
def phantoms() -> list[Case]:
    made = [make_case(index, 3, 256) for index in range(TRAINED + SEEN)]
    return [small(case.image_hw, case.labels_hw == 1) for case in made]


@pytest.fixture(scope="module")
def known(phantoms: list[Case]) -> Likeness:
    return learned(np.stack([hips(*case) for case in phantoms[:TRAINED]]))


@pytest.fixture(scope="module")
def adults(shared_data: Path) -> list[Case]:
    paths = sorted((shared_data / "real_dev11").rglob("imgs/*.nii.gz"))
    masks = [read_labels(path.parent.parent / "targets" / path.name).pixels_hw == 1 for path in paths]
    return [small(to_grey(read_picture(path).pixels_hw)[0], mask) for path, mask in zip(paths, masks, strict=True)]


def share_unlike(known: Likeness, cases: list[Case]) -> float:
    return float(np.mean([known.is_unlike(known.score(hips(*case))) for case in cases]))


def noise(image_hw: Array) -> Array:
    drawn = ndimage.gaussian_filter(np.random.default_rng(int(image_hw.sum())).normal(size=image_hw.shape), 4)
    return np.asarray(255 * (drawn - drawn.min()) / np.ptp(drawn), np.uint8)


NO_PELVIS: dict[str, Callable[[Array], Array]] = {
    "inverted": lambda image: 255 - image,
    "turned by 90 degrees": lambda image: np.ascontiguousarray(np.rot90(image)),
    "noise": noise,
    "blank but for a mark": lambda image: np.pad(np.full((9, 9), 200, np.uint8), (0, len(image) - 9)),
}


def test_pictures_like_the_training_cases_are_not_flagged(phantoms: list[Case], known: Likeness) -> None:
    # the level is 1 in 100: 60 pictures have four or more flags once in 300 such tests
    assert LEVEL == 0.01
    assert share_unlike(known, phantoms[TRAINED:]) <= 3 / SEEN


@pytest.mark.parametrize("what", NO_PELVIS)
def test_what_is_no_pelvis_is_flagged(phantoms: list[Case], known: Likeness, what: str) -> None:
    assert share_unlike(known, [(NO_PELVIS[what](image), mask) for image, mask in phantoms[TRAINED:]]) == 1


def test_mirrored_picture_is_as_alike(phantoms: list[Case]) -> None:
    image, mask = phantoms[0]
    uneven = image.copy()
    uneven[:, SIZE // 2 :] = noise(image)[:, SIZE // 2 :]
    known = Likeness(np.stack([hips(uneven, mask)]), 0.0)
    mirrored = hips(np.ascontiguousarray(uneven[:, ::-1]), np.ascontiguousarray(mask[:, ::-1]))
    assert float(mirrored @ known.hips_nd[0]) < 0.7
    assert float(known.score(mirrored) or 0) > np.arctanh(0.95)


def test_tone_makes_no_difference(phantoms: list[Case], known: Likeness) -> None:
    image, mask = phantoms[TRAINED]
    pale = known.score(hips((image // 2 + 60).astype(np.uint8), mask))
    assert pale == pytest.approx(known.score(hips(image, mask)), abs=0.1)


def test_limit_is_the_lower_end_of_the_prediction_interval() -> None:
    # six cases, each pair at the same correlation 0.5: every score is atanh(0.5), and the spread is the least one
    base, own = np.zeros(256, np.float32), np.eye(6, 256, dtype=np.float32)
    base[255] = 1
    limit = learned(np.sqrt(0.5, dtype=np.float32) * (own + base)).limit
    assert limit == pytest.approx(np.arctanh(0.5) - 3.3649 * 0.02 * np.sqrt(7 / 6), abs=1e-4)  # t of 5 degrees, 1 %


def test_few_cases_say_nothing() -> None:
    few = learned(np.eye(MIN_CASES - 1, 256, dtype=np.float32))
    assert few.limit is None
    assert few.score(np.ones(256, np.float32)) is None
    assert not few.is_unlike(None)


def test_no_real_adult_is_flagged_by_the_others(adults: list[Case]) -> None:
    features = np.stack([hips(*case) for case in adults])
    assert len(features) == 11
    for index, found in enumerate(features):
        others = learned(np.delete(features, index, axis=0))
        assert not others.is_unlike(others.score(found))


def test_every_infant_is_flagged_whichever_adults_mask_is_laid_on_it(adults: list[Case], shared_data: Path) -> None:
    known = learned(np.stack([hips(*case) for case in adults]))
    infants = [
        shrink_image(to_grey(read_picture(path).pixels_hw)[0], SIZE)
        for path in sorted((shared_data / "ood_pediatric_ddh").glob("*.dcm"))
    ]
    assert len(infants) == 10
    assert share_unlike(known, [(infant, mask) for infant in infants for _, mask in adults]) == 1
