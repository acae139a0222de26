"""Problems: what is wrong with one case or archive, with a code that people can search for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal, get_args

from femur_tasks.errors import FemurError

SPLITS = ("train", "val", "test")
LayoutName = Literal["reference", "flat", "nnunet", "decathlon", "coco", "semantic", "yolo"]
LAYOUTS: tuple[LayoutName, ...] = get_args(LayoutName)


class Weight(StrEnum):
    """What a problem does to the version.

    Attributes:
        WARNING: kept with the version, refuses nothing.
        LEAVES_OUT: refuses; where a person lifts it, the case is left out of the version.
        TAKES: refuses; where a person lifts it, the case is taken as it is.
        FINAL: refuses, and nobody can lift it: hostile input, leakage, or nothing to go on with.
    """

    WARNING = "warning"
    LEAVES_OUT = "error, lifting it leaves the case out"
    TAKES = "error, lifting it takes the case as it is"
    FINAL = "error that cannot be lifted"


@dataclass(frozen=True)
class Code:
    """A kind of problem: its weight, and what a person should do about it."""

    weight: Weight
    todo: str


_W, _L, _T, _F = Weight.WARNING, Weight.LEAVES_OUT, Weight.TAKES, Weight.FINAL
CODES: Mapping[str, Code] = {
    # the source
    "broken_archive": Code(_F, "Pack or download it again."),
    "hostile_archive": Code(_F, "Do not open it. Ask whoever sent it for plain files and folders."),
    "nested_archive": Code(_F, "Unpack the inner archive and ingest that."),
    "too_large": Code(_F, "Split it, or check whether it is what it says."),
    "wrong_digest": Code(_F, "Download it again; if it happens again, ask for the right digest."),
    "not_ingestible": Code(_F, "Drop an archive or a folder as incoming/<dataset>/<name>."),
    # the layout
    "unknown_layout": Code(_F, "Arrange it as one of the layouts of `femur ingest --help`, or name one with --layout."),
    "no_cases": Code(_F, "Check that the export holds pictures with masks."),
    "bad_annotations": Code(_F, "Export the annotations again."),
    "unknown_class": Code(_F, "Name the class with --femur-class, by name or by number."),
    "missing_partner": Code(_L, "Add the missing file, or leave the case out with --allow missing_partner."),
    "unlabelled": Code(_W, "Annotate it to have it used."),
    "duplicate_case": Code(_T, "Rename one of the two, or keep the first with --allow duplicate_case."),
    # one file
    "unreadable": Code(_L, "Export the file again, or leave the case out with --allow unreadable."),
    "hostile_file": Code(_F, "Do not open it. Find out where it came from."),
    "wrong_shape": Code(_L, "Export one grey 2-D picture, or leave the case out with --allow wrong_shape."),
    "size_mismatch": Code(_L, "Export mask and picture at one size, or leave the case out with --allow size_mismatch."),
    "not_finite": Code(_L, "Export it again without NaN or Inf, or leave the case out with --allow not_finite."),
    "constant_image": Code(_L, "Export the picture again, or leave the case out with --allow constant_image."),
    "mask_values": Code(_L, "Export class numbers, or leave the case out with --allow mask_values."),
    "soft_mask": Code(_W, "Nothing, where a threshold of one half is right; else export class numbers."),
    "burned_in": Code(_T, "Look whether a name is written in the picture; if not, go on with --allow burned_in."),
    # what the pixels show
    "empty_mask": Code(_T, "Annotate the femur, or take the case as one without with --allow empty_mask."),
    "femur_area": Code(_T, "Look at the mask in the report; if it is right, go on with --allow femur_area."),
    "one_femur": Code(_W, "Nothing, where the other femur is not in the picture; else complete the mask."),
    "many_parts": Code(_W, "Look at the mask in the report: a femur is one piece."),
    "inverted": Code(_W, "Look at the picture in the report: bone should be bright. Export it again inverted."),
    "mirrored": Code(_W, "Look at the overlay in the report: the mask fits better when mirrored. Export it again."),
    # the cases together
    "duplicate_pixels": Code(_L, "Remove one of the two, or keep the first with --allow duplicate_pixels."),
    "duplicate_across_splits": Code(_F, "Remove one of the two: a test on a training picture proves nothing."),
    "near_duplicate": Code(_F, "Look at both in the report, and remove one of the two."),
    "patient_in_two_splits": Code(_F, "Put all pictures of a patient into one split."),
    "split_carried": Code(_W, "Nothing: a patient stays in the split of first sight."),
    "split_drawn": Code(_W, "Nothing, or give the source a split of its own."),
    "empty_split": Code(_F, "Add cases: every split needs one at least."),
    "few_test_cases": Code(_W, "Add test cases: the gate refuses with so few."),
    "withdrawn": Code(_W, "Nothing: it was withdrawn on request."),
    "drift": Code(_W, "Compare both versions with `femur dataset diff`: scores may not be comparable."),
}

LIFTABLE = tuple(code for code, kind in CODES.items() if kind.weight in (Weight.LEAVES_OUT, Weight.TAKES))
"""What a person can lift by name."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong. An error refuses the dataset version, a warning is kept with it.

    Attributes:
        code: one of `CODES`, such as `size_mismatch`.
        case_id: the case, or the source's name where no case is to blame.
        found: what was there.
        expected: what should have been there.
        allowed: a person has lifted this error by name.
    """

    code: str
    case_id: str
    found: str
    expected: str
    allowed: bool = False

    @property
    def is_error(self) -> bool:
        """Whether it refuses the version."""
        return CODES[self.code].weight is not Weight.WARNING and not self.allowed

    @property
    def todo(self) -> str:
        """What a person should do about it."""
        return CODES[self.code].todo

    def as_dict(self) -> dict[str, Any]:
        """The problem as JSON, for a registry row and for scripts; `from_dict` reads it back."""
        return {**vars(self), "is_error": self.is_error, "todo": self.todo}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Problem:
        """Read what `as_dict` wrote."""
        return cls(**{name: fields[name] for name in ("code", "case_id", "found", "expected", "allowed")})


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Only those that refuse the version."""
    return [problem for problem in problems if problem.is_error]


def lifted(problems: Iterable[Problem], allow: frozenset[str]) -> list[Problem]:
    """The problems, with those of the codes in `allow` lifted where their kind can be."""
    liftable = allow & frozenset(LIFTABLE)
    return [replace(problem, allowed=True) if problem.code in liftable else problem for problem in problems]


def leave_out(problems: Iterable[Problem]) -> frozenset[str]:
    """The cases that a lifted problem leaves out of the version."""
    return frozenset(
        problem.case_id for problem in problems if problem.allowed and CODES[problem.code].weight is Weight.LEAVES_OUT
    )


class Faulty(FemurError):
    """A file or an archive that can't be used: raised where its case is not known, a problem where it is.

    Args:
        code: one of `CODES`.
        found, expected: as in `Problem`.
    """

    exit_code = 2

    def __init__(self, code: str, found: str, expected: str) -> None:
        super().__init__(f"Expected {expected}. Received: {found}.", CODES[code].todo)
        self.code, self.found, self.expected = code, found, expected

    def of(self, case_id: str, what: str = "") -> Problem:
        """The problem of this case; `what` says which of its files."""
        return Problem(self.code, case_id, f"{what}: {self.found}" if what else self.found, self.expected)
