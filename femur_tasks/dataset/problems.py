"""Problems: what is wrong with one case or archive, with a code that people can search for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Problem:
    """One thing wrong. An error refuses the dataset version, a warning is kept with it.

    Attributes:
        code: short stable name, such as `size_mismatch`.
        case_id: the case, or the archive's name where no case is to blame.
        found: what was there.
        expected: what should have been there, or what to do.
    """

    code: str
    case_id: str
    found: str
    expected: str
    is_error: bool = True

    def as_dict(self) -> dict[str, Any]:
        """The problem as JSON for a registry row."""
        return asdict(self)


def errors(problems: Iterable[Problem]) -> list[Problem]:
    """Only those that refuse the version."""
    return [problem for problem in problems if problem.is_error]
