"""Problems: every code has its weight and its advice, in the code and on the page that people read."""

from __future__ import annotations

import json
import re

import pytest

from femur_tasks.dataset.problems import CODES, LIFTABLE, Faulty, Problem, Weight, errors, leave_out, lifted
from femur_tasks.settings import CHECKOUT

EXAMPLES = {
    Weight.WARNING: "one_femur",
    Weight.LEAVES_OUT: "unreadable",
    Weight.TAKES: "femur_area",
    Weight.FINAL: "hostile_file",
}
LIFTING = {
    Weight.WARNING: "",
    Weight.LEAVES_OUT: "leaves the case out",
    Weight.TAKES: "takes the case as it is",
    Weight.FINAL: "no",
}


def problem(code: str, case_id: str = "A", allowed: bool = False) -> Problem:
    return Problem(code, case_id, "this", "that", allowed)


@pytest.mark.parametrize("code", CODES)
def test_every_code_says_what_to_do_and_how_to_lift_it(code: str) -> None:
    kind = CODES[code]
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*", code)
    assert kind.todo.endswith(".")
    assert (f"--allow {code}." in kind.todo) == (code in LIFTABLE), "it names --allow where that helps"


@pytest.mark.parametrize(
    ("weight", "is_error", "liftable", "left_out"),
    [
        (Weight.WARNING, False, False, False),
        (Weight.LEAVES_OUT, True, True, True),
        (Weight.TAKES, True, True, False),
        (Weight.FINAL, True, False, False),
    ],
    ids=[weight.name for weight in Weight],
)
def test_weight_decides_what_a_problem_does(weight: Weight, is_error: bool, liftable: bool, left_out: bool) -> None:
    code = EXAMPLES[weight]
    assert CODES[code].weight is weight
    assert problem(code).is_error is is_error
    assert (code in LIFTABLE) is liftable
    (after,) = lifted([problem(code)], frozenset(CODES))
    assert after.allowed is liftable
    assert after.is_error is (is_error and not liftable)
    assert leave_out([after]) == (frozenset("A") if left_out else frozenset())
    assert leave_out([problem(code)]) == frozenset(), "what nobody lifted leaves nothing out"


def test_only_the_codes_that_are_named_are_lifted() -> None:
    found = [problem("unreadable", "A"), problem("femur_area", "B"), problem("one_femur", "C")]
    after = lifted(found, frozenset({"femur_area"}))
    assert [one.allowed for one in after] == [False, True, False]
    assert errors(after) == [found[0]]
    assert errors(found) == found[:2]


def test_hostile_and_leaking_input_cannot_be_lifted() -> None:
    never = {"hostile_file", "hostile_archive", "wrong_digest", "duplicate_across_splits", "near_duplicate"}
    assert not {*never, "patient_in_two_splits", "empty_split", "unknown_class", "no_cases"} & set(LIFTABLE)


@pytest.mark.parametrize("code", EXAMPLES.values())
@pytest.mark.parametrize("allowed", [False, True], ids=["plain", "lifted"])
def test_problem_comes_back_from_json_as_it_was(code: str, allowed: bool) -> None:
    one = problem(code, "Käse/1", allowed)
    told = json.loads(json.dumps(one.as_dict()))
    assert Problem.from_dict(told) == one
    assert (told["is_error"], told["todo"]) == (one.is_error, CODES[code].todo)


def test_fault_is_a_sentence_and_becomes_the_problem_of_its_case() -> None:
    fault = Faulty("wrong_shape", "3 frames", "one picture")
    assert str(fault) == f"Expected one picture. Received: 3 frames. {CODES['wrong_shape'].todo}"
    assert fault.exit_code == 2
    assert fault.of("A") == Problem("wrong_shape", "A", "3 frames", "one picture")
    assert fault.of("A", "mask").found == "mask: 3 frames"


def test_page_explains_every_code_once_with_its_weight() -> None:
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in (CHECKOUT / "docs" / "problems.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert all(len(row) == 5 and row[1] and row[4] for row in rows), "code, meaning, weight, lifting, what to do"
    said = [(row[0].strip("`"), row[2], row[3]) for row in rows]
    weights = [(code, kind.weight) for code, kind in CODES.items()]
    assert said == [
        (code, "warning" if weight is Weight.WARNING else "error", LIFTING[weight]) for code, weight in weights
    ], "in the order of CODES"
