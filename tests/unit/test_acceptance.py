"""Acceptance: which cases make the version, in which split, and everything that speaks against it at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pytest

from femur_tasks.dataset.acceptance import Accepted, Known, accept
from femur_tasks.dataset.cases import CaseFacts
from femur_tasks.dataset.fingerprint import fingerprint
from femur_tasks.dataset.problems import CODES, Problem, Weight
from femur_tasks.phantom import LABELS, make_case

FINAL = [code for code, kind in CODES.items() if kind.weight is Weight.FINAL]


def facts(case_id: str, split: str | None = "train", patient: str = "", pixels: str = "") -> CaseFacts:
    return CaseFacts(
        case_id=case_id,
        patient=patient or case_id,
        split=split,
        height_px=40,
        width_px=48,
        spacing_mm=None,
        mirrored=False,
        image_sha256=hashlib.sha256((pixels or case_id).encode()).hexdigest(),
        mask_sha256="m",
        window=None,
        intensity_mean=90.0,
        intensity_sd=30.0,
        femur_area_pct=9.0,
        femur_x_pct=50.0,
        femur_y_pct=60.0,
        labels=(),
        raw_image="",
        raw_mask="",
    )


WHOLE = (facts("A"), facts("B"), facts("C", "val"), facts("D", "test"))


def judged(
    cases: Iterable[CaseFacts], *found: Problem, allow: Iterable[str] = (), known: Known | None = None, **more: Any
) -> Accepted:
    fingerprints: Mapping[str, Any] = more.pop("fingerprints", {})
    return accept("hip", tuple(cases), found, known or Known(), frozenset(allow), fingerprints, **more)


def said(accepted: Accepted) -> list[tuple[str, str]]:
    """What was found, but for the few test cases that every small set has."""
    return [(one.case_id, one.code) for one in accepted.problems if one.code != "few_test_cases"]


def problem(code: str, case_id: str = "A") -> Problem:
    return Problem(code, case_id, "this", "that")


def ids(accepted: Accepted) -> str:
    return "".join(case.case_id for case in accepted.cases)


# ---- splits


def test_splits_of_the_source_are_taken_and_cases_ordered() -> None:
    accepted = judged(reversed(WHOLE))
    assert (ids(accepted), accepted.refused, said(accepted)) == ("ABCD", False, [])
    assert accepted.splits == {"A": "train", "B": "train", "C": "val", "D": "test"}
    assert accepted.counts == {"train": 2, "val": 1, "test": 1}


def test_patient_whom_the_source_has_in_two_splits_is_refused_and_named() -> None:
    accepted = judged([*WHOLE, facts("E", "test", patient="B")])
    assert said(accepted) == [("E", "patient_in_two_splits")]
    assert accepted.refused
    found = next(one.found for one in accepted.problems if one.case_id == "E")
    assert found == "in test, the patient of B in train"


def test_case_without_a_split_goes_where_its_patient_is() -> None:
    accepted = judged([*WHOLE, facts("E", None, patient="D"), facts("F", None, patient="E"), facts("G", "val", "E")])
    assert (accepted.splits["E"], accepted.splits["F"], accepted.splits["G"]) == ("test", "val", "val")
    assert said(accepted) == []


def test_split_of_first_sight_is_carried_and_the_move_said() -> None:
    known = Known(splits={"A": "train", "D": "test", "X": "val"})
    moved = [facts("A", "test"), facts("B"), facts("C", "val"), facts("D", "train"), facts("E", None, patient="D")]
    accepted = judged(moved, known=known)
    assert accepted.splits == {"A": "train", "B": "train", "C": "val", "D": "test", "E": "test"}
    assert said(accepted) == [("A", "split_carried"), ("D", "split_carried")]
    assert not accepted.refused
    assert accepted.problems[1].found == "in train, but test in an earlier version"


def test_known_patient_whom_the_source_tears_apart_stays_whole() -> None:
    known = Known(splits={"A": "train"})
    accepted = judged([*WHOLE, facts("E", "test", patient="A")], known=known)
    assert accepted.splits["E"] == "train"
    assert said(accepted) == [("E", "split_carried")]


@pytest.mark.parametrize("missing", ["val", "test"])
def test_split_that_the_source_lacks_is_drawn_from_train(missing: str) -> None:
    cases = [facts(f"{n}") for n in range(9)] + [facts("Z", "test" if missing == "val" else "val")]
    accepted = judged(cases)
    share = {"val": 1, "test": 2}[missing]  # of ten patients, at 7:1:2
    assert accepted.counts[missing] == share
    assert said(accepted) == [("hip", "split_drawn")]
    assert accepted.problems[0].found == f"no case in {missing}: {share} drawn from train"


def test_draw_does_not_tear_apart_what_is_there_twice() -> None:
    cases = [facts(f"{n:02d}", None, pixels="the same" if n in (3, 7, 11) else "") for n in range(12)]
    accepted = judged(cases)
    assert len({accepted.splits[case_id] for case_id in ("03", "07", "11")}) == 1
    assert said(accepted) == [("07", "duplicate_pixels"), ("11", "duplicate_pixels")]


def test_source_without_splits_is_drawn_without_a_word() -> None:
    accepted = judged(facts(f"{n}", None) for n in range(10))
    assert accepted.counts == {"train": 7, "val": 1, "test": 2}
    assert said(accepted) == []


# ---- withdrawn


def test_withdrawn_case_is_left_out_by_its_id() -> None:
    accepted = judged([*WHOLE, facts("E")], known=Known(withdrawn_ids=frozenset("EX")))
    assert (ids(accepted), said(accepted), accepted.refused) == ("ABCD", [("E", "withdrawn")], False)


def test_withdrawn_case_is_left_out_by_its_pixels_under_another_id() -> None:
    gone = frozenset({facts("E").image_sha256})
    accepted = judged([*WHOLE, facts("F", pixels="E")], known=Known(withdrawn_images=gone))
    assert (ids(accepted), said(accepted)) == ("ABCD", [("F", "withdrawn")])


@pytest.mark.parametrize("code", ["femur_area", "unreadable", "missing_partner"])
def test_what_is_wrong_with_a_withdrawn_case_refuses_nothing(code: str) -> None:
    cases = [*WHOLE, facts("E")] if code == "femur_area" else WHOLE
    accepted = judged(cases, problem(code, "E"), known=Known(withdrawn_ids=frozenset("E")))
    assert (said(accepted), accepted.refused) == ([("E", "withdrawn")], False)


def test_withdrawn_case_is_no_leak() -> None:
    accepted = judged([*WHOLE, facts("E", "test", patient="A", pixels="A")], known=Known(withdrawn_ids=frozenset("E")))
    assert said(accepted) == [("E", "withdrawn")]


def test_version_of_which_everything_is_withdrawn_is_refused() -> None:
    accepted = judged(WHOLE, known=Known(withdrawn_ids=frozenset("ABCD")))
    assert accepted.refused
    assert said(accepted)[4:] == [("hip", "empty_split")] * 3


# ---- lifting


def test_lifted_error_leaves_its_case_out() -> None:
    accepted = judged(WHOLE, problem("missing_partner", "E"), problem("not_finite", "B"), allow=["not_finite"])
    assert (ids(accepted), accepted.refused) == ("ACD", True)
    assert [(one.code, one.allowed) for one in accepted.problems[:2]] == [
        ("missing_partner", False),
        ("not_finite", True),
    ]
    both = judged(WHOLE, problem("missing_partner", "E"), problem("not_finite", "B"), allow=["not_finite", *CODES])
    assert (ids(both), both.refused) == ("ACD", False)


def test_lifted_error_takes_its_case_as_it_is() -> None:
    accepted = judged(WHOLE, problem("femur_area"), problem("burned_in", "D"), allow=["femur_area", "burned_in"])
    assert (ids(accepted), accepted.refused) == ("ABCD", False)
    assert [one.allowed for one in accepted.problems[:2]] == [True, True], "and it is still told"


@pytest.mark.parametrize("code", FINAL)
def test_final_error_is_never_lifted(code: str) -> None:
    assert judged(WHOLE, problem(code), allow=CODES).refused


def test_duplicates_are_refused_and_lifted_the_first_stays() -> None:
    cases = [*WHOLE, facts("E", pixels="B"), facts("F", pixels="B")]
    assert said(judged(cases)) == [("E", "duplicate_pixels"), ("F", "duplicate_pixels")]
    accepted = judged(cases, allow=["duplicate_pixels"])
    assert (ids(accepted), accepted.refused, accepted.counts["train"]) == ("ABCD", False, 2)


def test_case_id_that_two_files_claim_is_lifted_to_the_first() -> None:
    accepted = judged(WHOLE, problem("duplicate_case", "B"), allow=["duplicate_case"])
    assert (ids(accepted), accepted.refused) == ("ABCD", False)


def test_lifted_case_is_no_leak_and_has_no_split() -> None:
    cases = [*WHOLE, facts("E", "test", pixels="A")]
    accepted = judged(cases, problem("mask_values", "E"), allow=["mask_values"])
    assert said(accepted) == [("E", "mask_values")]
    assert "E" not in accepted.splits


def test_picture_in_two_splits_is_never_lifted() -> None:
    accepted = judged([*WHOLE, facts("E", "test", pixels="A")], allow=CODES)
    assert (said(accepted), accepted.refused) == ([("E", "duplicate_across_splits")], True)
    assert accepted.pairs == (("A", "E", 1.0),), "to be shown side by side"


def test_near_duplicate_is_found_by_the_fingerprints_and_only_where_there_are_any() -> None:
    made = [make_case(index, 3, 128) for index in range(2)]
    first, second = (fingerprint(one.image_hw, one.labels_hw == LABELS["femur"]) for one in made)
    prints = {"A": first, "C": second, "D": first + np.float16(0.01)}
    assert said(judged(WHOLE, fingerprints=prints)) == [("D", "near_duplicate")]
    ((first_id, second_id, score),) = judged(WHOLE, fingerprints={**prints, "D": second}).pairs
    assert (first_id, second_id, round(score, 2)) == ("C", "D", 1.0)
    del prints["D"]
    assert said(judged(WHOLE, fingerprints=prints)) == []


# ---- empty splits


def test_source_without_training_cases_is_refused() -> None:
    accepted = judged(WHOLE[2:])
    assert (said(accepted), accepted.refused) == ([("hip", "empty_split")], True)
    assert accepted.problems[0].found == "no case in train"


@pytest.mark.parametrize("unread", ["train", None], ids=["of this split", "of no split"])
def test_split_whose_cases_cannot_be_read_is_broken_and_not_empty(unread: str | None) -> None:
    accepted = judged(WHOLE[2:], problem("unreadable"), unread={unread})
    assert (said(accepted), accepted.refused) == ([("A", "unreadable")], True)


def test_split_is_empty_where_the_unreadable_cases_are_of_another() -> None:
    accepted = judged(WHOLE[2:], problem("unreadable", "E"), unread={"test"})
    assert said(accepted) == [("E", "unreadable"), ("hip", "empty_split")]


def test_split_is_empty_when_its_unreadable_cases_are_left_out() -> None:
    accepted = judged(WHOLE[2:], problem("unreadable"), allow=["unreadable"], unread={"train"})
    assert (said(accepted), accepted.refused) == ([("A", "unreadable"), ("hip", "empty_split")], True)


def test_source_of_which_nothing_is_left_is_refused() -> None:
    accepted = judged([], problem("unreadable"), allow=["unreadable"], unread={"train"})
    assert said(accepted) == [("A", "unreadable")] + [("hip", "empty_split")] * 3


def test_source_without_a_case_has_no_empty_splits_beside_what_is_wrong() -> None:
    assert said(judged([], problem("broken_archive", "x.zip"))) == [("x.zip", "broken_archive")]


@pytest.mark.parametrize(("count", "codes"), [(19, ["few_test_cases"]), (20, [])], ids=["19", "20"])
def test_few_test_cases_are_fewer_than_twenty(count: int, codes: list[str]) -> None:
    accepted = judged([*WHOLE[:3], *(facts(f"T{n:02d}", "test") for n in range(count))])
    assert [one.code for one in accepted.problems] == codes
    assert not accepted.refused
    assert all(one.found == "19 test cases" for one in accepted.problems)


def test_problems_of_all_cases_come_at_once() -> None:
    accepted = judged(
        [*WHOLE, facts("E", pixels="B"), facts("F", "test", patient="A"), facts("G", "test"), facts("H", "test")],
        problem("missing_partner", "X"),
        problem("one_femur", "B"),
        problem("withdrawn", "V"),
        known=Known(splits={"D": "train"}, withdrawn_ids=frozenset("G")),
    )
    assert said(accepted) == [
        ("X", "missing_partner"),
        ("B", "one_femur"),
        ("V", "withdrawn"),
        ("G", "withdrawn"),
        ("E", "duplicate_pixels"),
        ("F", "patient_in_two_splits"),
        ("D", "split_carried"),
    ]
