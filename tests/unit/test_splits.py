"""Splits: every patient has one, keeps it, and new ones fill up what is short."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from femur_tasks.dataset.problems import SPLITS
from femur_tasks.dataset.splits import assign_splits

PATIENTS = st.text("abcxyz0189_", min_size=1, max_size=4)
SPLIT = st.sampled_from(SPLITS)
SOURCES = st.dictionaries(PATIENTS, st.none() | SPLIT, max_size=30)


def counts(splits: dict[str, str]) -> tuple[int, ...]:
    return tuple(list(splits.values()).count(split) for split in SPLITS)


def silent(count: int, first: int = 0) -> dict[str, str | None]:
    return {f"HIP_{i}": None for i in range(first, first + count)}


def test_what_the_source_says_is_kept() -> None:
    source: dict[str, str | None] = {"a": "train", "b": "val", "c": "test"}
    assert assign_splits(source, {}, seed=0) == source


def test_split_of_an_earlier_version_wins_over_the_source() -> None:
    assert assign_splits({"a": "train", "b": "train"}, {"a": "test"}, seed=0) == {"a": "test", "b": "train"}


def test_patients_that_are_gone_do_not_come_back() -> None:
    assert assign_splits({"a": "train"}, {"z": "test"}, seed=0) == {"a": "train"}


# 7 : 1 : 2, filled one by one with what is furthest below its share; ties go to the earlier of train, val, test
@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, (0, 0, 0)), (1, (1, 0, 0)), (10, (7, 1, 2)), (100, (70, 10, 20)), (458, (321, 46, 91))],
)
def test_shares_are_seven_one_two(count: int, expected: tuple[int, int, int]) -> None:
    found = counts(assign_splits(silent(count), {}, seed=0))
    assert found == pytest.approx(expected, abs=1)
    assert sum(found) == count


def test_six_flat_cases_fill_every_split() -> None:
    assert min(counts(assign_splits(silent(6), {}, seed=0))) == 1


def test_new_patients_fill_the_split_that_is_short() -> None:
    fixed = {f"HIP_{i}": "train" for i in range(7)}
    assert counts(assign_splits(silent(10), fixed, seed=0)) == (7, 1, 2)


def test_another_seed_draws_another_split() -> None:
    assert assign_splits(silent(40), {}, seed=0) != assign_splits(silent(40), {}, seed=1)


@given(SOURCES, st.dictionaries(PATIENTS, SPLIT, max_size=30), st.integers(0, 9))
def test_every_patient_has_one_split_and_fixed_ones_keep_theirs(
    source: dict[str, str | None], fixed: dict[str, str], seed: int
) -> None:
    splits = assign_splits(source, fixed, seed)
    assert splits.keys() == source.keys()
    for patient, split in splits.items():
        assert split in SPLITS
        if patient in fixed:
            assert split == fixed[patient]
        elif split != source[patient] is not None:  # drawn from train, for a split that nobody else had
            assert source[patient] == "train"
            assert split not in {fixed.get(other, source[other]) for other in source}


@pytest.mark.parametrize(
    ("given", "missing", "drawn"),
    [("train", "val", 1), ("train", "test", 2)],
    ids=["a tenth for validation", "a fifth for testing"],
)
def test_missing_split_gets_its_share_of_the_training_patients(given: str, missing: str, drawn: int) -> None:
    others = {"val", "test"} - {missing}
    source = {f"T{i}": given for i in range(8)} | {f"O{i}": other for other in others for i in range(2)}
    splits = assign_splits(source, {}, seed=0)
    moved = [patient for patient in source if splits[patient] != source[patient]]
    assert (len(moved), {splits[patient] for patient in moved}) == (drawn, {missing})
    assert all(patient.startswith("T") for patient in moved)


def test_training_patient_of_an_earlier_version_is_not_drawn() -> None:
    source = dict.fromkeys("abc", "train")
    splits = assign_splits(source, {"a": "train", "b": "train"}, seed=0)
    assert (splits["a"], splits["b"]) == ("train", "train")


@given(SOURCES, st.integers(0, 9), st.randoms())
def test_order_of_the_files_does_not_matter(source: dict[str, str | None], seed: int, random: object) -> None:
    shuffled = list(source.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert assign_splits(dict(shuffled), {}, seed) == assign_splits(source, {}, seed)


@given(SOURCES, SOURCES, st.integers(0, 9))
def test_nobody_moves_when_patients_are_added(
    source: dict[str, str | None], added: dict[str, str | None], seed: int
) -> None:
    first = assign_splits(source, {}, seed)
    second = assign_splits({**added, **source}, first, seed)
    assert {patient: second[patient] for patient in first} == first
