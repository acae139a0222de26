"""Classes: which numbers of a mask are the femur, by their names or by a person's word."""

from __future__ import annotations

import re
from collections.abc import Mapping

from femur_tasks.dataset.problems import Faulty

FEMUR_NAMES = (
    "femur",
    "femurs",
    "femora",
    "proximal femur",
    "hip femur",
    "femur bone",
    "left femur",
    "right femur",
    "femur left",
    "femur right",
    "femur l",
    "femur r",
    "l femur",
    "r femur",
    "left proximal femur",
    "right proximal femur",
    "proximal femur left",
    "proximal femur right",
)
_SEPARATORS = re.compile(r"[\s_-]+")
_SHOWN = 20
_BINARY = 255  # a mask of 0 and 255 has one class, whatever its number elsewhere


def femur_numbers(
    classes: Mapping[int, str] | None, asked: str | None, values: frozenset[int] | None
) -> frozenset[int]:
    """The class numbers that are femur.

    Args:
        classes: name by number, as the source gives them; None where it gives none.
        asked: a person's word: a name or a number, or several with commas between; it goes before all else.
        values: the foreground values of all masks; None where no mask holds values.

    Raises:
        Faulty: what was asked for is not there, or nothing says which class it is. Numbers are never assumed.
    """
    if words := [word.strip() for word in (asked or "").split(",") if word.strip()]:
        return frozenset().union(*(_asked(word, classes, values) for word in words))
    if classes:
        wanted = {_plain(name) for name in FEMUR_NAMES}
        if found := frozenset(number for number, name in classes.items() if _plain(name) in wanted):
            return found
        raise _unknown(classes, values, f"a class with a name such as {', '.join(FEMUR_NAMES[:3])}")
    if values and len(single := values - {_BINARY} or values) == 1:
        return single
    raise _unknown(classes, values, "names of the classes, or masks of a single class")


def _asked(word: str, classes: Mapping[int, str] | None, values: frozenset[int] | None) -> frozenset[int]:
    if classes and (named := frozenset(number for number, name in classes.items() if _plain(name) == _plain(word))):
        return named
    there = classes.keys() if classes else values
    if word.isascii() and word.isdecimal() and len(word) < 10 and (there is None or int(word) in there):
        return frozenset({int(word)})
    raise _unknown(classes, values, f"a class {word!r:.80}")


def _plain(name: str) -> str:
    return _SEPARATORS.sub("", name).casefold()


def _unknown(classes: Mapping[int, str] | None, values: frozenset[int] | None, expected: str) -> Faulty:
    if classes:
        there = [f"{number} {name!r:.80}" for number, name in sorted(classes.items())]
    else:
        there = [f"{value}" for value in sorted(values or ())]
    shown = ", ".join(there[:_SHOWN]) + (f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else "")
    what = "classes" if classes else "no names, values"
    return Faulty("unknown_class", f"{what} {shown or 'none'}", expected)
