"""A layout in the making: cases, classes and problems as they are found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from femur_tasks.dataset.layouts.annotations import read_text
from femur_tasks.dataset.layouts.layout import CaseFiles, Layout, Shapes
from femur_tasks.dataset.layouts.source import CLASSES_CSV, Source, whole
from femur_tasks.dataset.naming import Name
from femur_tasks.dataset.problems import Faulty, Problem

MAX_POINTS = 10_000_000
_MAX_CSV_BYTES = 1 << 20
_MAX_TOLD = 20
_MAX_FILES_TOLD = 1000


class Draft:
    """Collects what a reader finds; `layout` settles ids that are claimed twice."""

    def __init__(self, source: Source, name: str) -> None:
        self.source, self._name = source, name
        self.problems: list[Problem] = []
        self._found: list[tuple[Path, Name, str | None, Path | Shapes]] = []
        self._classes: dict[int, str] = {}
        self._bad: Counter[str] = Counter()
        self._points = 0

    def case(self, stem: str, split: str | None, image: Path, mask: Path | Shapes) -> None:
        """A case with both of its parts."""
        self._found.append((image, self.source.namer.named(stem), split, mask))

    def problem(self, code: str, stem: str, found: str, expected: str) -> None:
        """Something that is wrong with the case of this file stem."""
        self.problems.append(Problem(code, self.source.namer.named(stem).case_id, found, expected))

    def partners(
        self,
        split: str | None,
        images: Mapping[str, Path],
        masks: Mapping[str, Path | Shapes],
        folders: tuple[Path, Path],
    ) -> None:
        """Make cases of the images and masks of equal stems; the others lack their partner in one of the folders."""
        for stem in sorted(images.keys() | masks.keys()):
            if stem in images and stem in masks:
                self.case(stem, split, images[stem], masks[stem])
            else:
                have, lack = ("image", "mask") if stem in images else ("mask", "image")
                where = self.source.shown(folders[lack == "mask"])
                self.problem("missing_partner", stem, f"only its {have}", f"its {lack} in {where}")

    def pictures(self, folder: Path) -> dict[str, Path]:
        """One picture a stem; a second one is a problem."""
        found = self.source.pictures(folder)
        for stem, paths in found.items():
            for _ in paths[1:]:
                told = f"two files of this name in {self.source.shown(folder)}"
                self.problem("duplicate_case", stem, told, "one file an id")
        return {stem: paths[0] for stem, paths in found.items()}

    def bad(self, where: str, found: str, expected: str, stem: str | None = None) -> None:
        """A fault of an annotation file: the first of a file in words, the others counted."""
        self._bad[where] += 1
        if self._bad[where] <= _MAX_TOLD and len(self._bad) <= _MAX_FILES_TOLD:
            case_id = self.source.folder.name if stem is None else self.source.namer.named(stem).case_id
            self.problems.append(Problem("bad_annotations", case_id, f"{where}: {found}", expected))

    @contextmanager
    def part(self, where: str, what: str, stem: str | None = None) -> Iterator[None]:
        """Go on behind a part of an annotation file that is of no use."""
        try:
            yield
        except Faulty as err:
            if err.code != "bad_annotations":
                raise
            self.bad(where, f"{what}: {err.found}", err.expected, stem)

    def faulty(self, where: str, err: Faulty) -> None:
        """An annotation file that is of no use."""
        if err.code == "bad_annotations":
            self.bad(where, err.found, err.expected)
        else:
            self.problems.append(err.of(self.source.folder.name, where))

    def classes(self, names: Mapping[int, str], where: str) -> None:
        """The classes of one annotation file, which must be those of the others."""
        before = dict(self._classes)
        for number, name in names.items():
            if before.get(number, name) != name:
                self.bad(where, f"class {number} is {name!r:.80}, elsewhere {before[number]!r:.80}", "the same classes")
            elif number not in before and name in before.values():
                self.bad(where, f"{name!r:.80} is class {number}, elsewhere another", "the same classes everywhere")
            self._classes.setdefault(number, name)

    def class_tables(self) -> None:
        """Read every _classes.csv: a line a class, its pixel value and its name."""
        for path in self.source.named(CLASSES_CSV):
            where = f"{self.source.shown(path.parent)}{CLASSES_CSV}"
            try:
                lines = read_text(path, _MAX_CSV_BYTES).splitlines()
            except Faulty as err:
                self.faulty(where, err)
                continue
            names: dict[int, str] = {}
            for row, line in enumerate(lines, 1):
                value, _, name = (part.strip().strip('"') for part in line.partition(","))
                number = whole(value)
                if not line.strip() or (row == 1 and number is None and name.lower() == "class"):
                    continue
                if number is None or not name or names.get(number, name) != name:
                    self.bad(where, f"line {row}", "a pixel value and one class name for it, such as `1, femur`")
                else:
                    names[number] = name
            self.classes(names, where)

    def points(self, count: int) -> None:
        """Count the points of the outlines that are held in memory.

        Raises:
            Faulty: there are too many in the source.
        """
        self._points += count
        if self._points > MAX_POINTS:
            raise Faulty("too_large", f"over {MAX_POINTS} points of outlines", "a source with fewer")

    def layout(self) -> Layout:
        """What was found, each case once and under an id of its own."""
        variants: dict[str, set[str]] = {}
        for _, name, _, _ in self._found:
            variants.setdefault(name.case_id, set()).add(name.variant)
        cases: dict[str, CaseFiles] = {}
        for image, name, split, mask in sorted(self._found, key=lambda found: found[0]):
            several = name.variant and len(variants[name.case_id]) > 1
            case_id = f"{name.case_id}.{name.variant}" if several else name.case_id
            if case_id in cases:
                earlier = self.source.shown(cases[case_id].image.parent) or "the source"
                self.problems.append(Problem("duplicate_case", case_id, f"also in {earlier}", "one case an id"))
            else:
                cases[case_id] = CaseFiles(case_id, name.patient, split, image, mask)
        told = sum(problem.code == "bad_annotations" for problem in self.problems)
        if more := self._bad.total() - told:
            found = f"{more} more faults in {len(self._bad)} annotation files"
            self.problems.append(Problem("bad_annotations", self.source.folder.name, found, "files without faults"))
        if not cases and not self.problems:
            found = "no picture with a mask"
            self.problems.append(Problem("no_cases", self.source.folder.name, found, "at least one case"))
        ordered = tuple(cases[case_id] for case_id in sorted(cases))
        return Layout(self._name, ordered, self._classes or None, tuple(self.problems))
