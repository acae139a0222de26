"""Acceptance: from what is known of a source's cases to the version that they make, or why they make none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field

from femur_tasks.dataset.cases import CaseFacts
from femur_tasks.dataset.leakage import Seen, leaks
from femur_tasks.dataset.picture import Array
from femur_tasks.dataset.problems import SPLITS, Problem, errors, leave_out, lifted
from femur_tasks.dataset.splits import assign_splits

FEW_TEST_CASES = 20
_ACROSS_SPLITS = ("duplicate_across_splits", "near_duplicate")
_SPLIT_SEED = 0


@dataclass(frozen=True)
class Known:
    """What the registry knows of a dataset; nothing at all, for its first version.

    Attributes:
        splits: patient -> split at first sight.
        withdrawn_ids, withdrawn_images: cases taken out on request, by id and by the digest of their pixels.
    """

    splits: Mapping[str, str] = field(default_factory=dict)
    withdrawn_ids: frozenset[str] = frozenset()
    withdrawn_images: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Accepted:
    """The cases of a version, with the problems of the whole source.

    Attributes:
        cases: those that make the version, in the order of their ids; meaningless where there are errors.
        splits: case id -> split.
        problems: errors, lifted errors and warnings.
        pairs: cases that show one picture in two splits, as two case ids and how alike they are, 1 where they are
            the same; both are in `cases`.
    """

    cases: tuple[CaseFacts, ...]
    splits: Mapping[str, str]
    problems: tuple[Problem, ...]
    pairs: tuple[tuple[str, str, float], ...]

    @property
    def refused(self) -> bool:
        """Whether any error is left."""
        return bool(errors(self.problems))

    @property
    def counts(self) -> dict[str, int]:
        """Cases by split."""
        counts = Counter(self.splits.values())
        return {split: counts[split] for split in SPLITS}


def accept(
    dataset: str,
    cases: Sequence[CaseFacts],
    found: Sequence[Problem],
    known: Known,
    allow: frozenset[str],
    fingerprints: Mapping[str, Array],
    unread: Set[str | None] = frozenset(),
) -> Accepted:
    """Take out what was withdrawn and what a lifted error leaves out, give each patient a split, look for leaks.

    Args:
        dataset: its name, which problems of the whole bear.
        cases: every readable case.
        found: what the layout and the readers found.
        known: what the registry knows of the dataset.
        allow: codes of errors that a person lifted.
        fingerprints: of the cases by id; a case without one is not looked at for near-duplicates.
        unread: the source's splits of the cases that can't be read: these are not empty, only broken.
    """
    # a withdrawn case does not count, broken or not
    gone = known.withdrawn_ids & {*(case.case_id for case in cases), *(problem.case_id for problem in found)}
    gone |= {case.case_id for case in cases if case.image_sha256 in known.withdrawn_images}
    problems = [problem for problem in found if problem.case_id not in gone]
    problems += [Problem("withdrawn", case_id, "withdrawn on request", "no such case") for case_id in sorted(gone)]
    problems = lifted(problems, allow)
    gone |= leave_out(problems)
    stay = sorted((case for case in cases if case.case_id not in gone), key=lambda case: case.case_id)

    splits = _splits(stay, known)
    seen = [
        Seen(case.case_id, case.patient, splits[case.case_id], case.image_sha256, fingerprints.get(case.case_id))
        for case in stay
    ]
    leaked = leaks(seen)
    leaking = lifted([leak.problem for leak in leaked], allow)
    problems += leaking
    gone = leave_out(leaking)
    stay = [case for case in stay if case.case_id not in gone]
    splits = {case.case_id: splits[case.case_id] for case in stay}
    # correcting the errors brings cases back; where there is none left, what is empty stays empty
    unread = (unread if stay else {None}) if errors(problems) else frozenset()
    problems += _of_splits(dataset, stay, splits, known, unread)
    pairs = tuple(
        (leak.other_id, leak.problem.case_id, leak.score)
        for leak in leaked
        if leak.score is not None and leak.problem.code in _ACROSS_SPLITS
    )
    return Accepted(tuple(stay), splits, tuple(problems), pairs)


def _splits(cases: Sequence[CaseFacts], known: Known) -> dict[str, str]:
    """Each case's split: its patient's, but the source's own where that has one patient in two."""
    source: dict[str, str | None] = {}
    torn = set()
    for case in cases:
        earlier = source.setdefault(case.patient, case.split)
        if case.split and earlier and case.split != earlier:
            torn.add(case.patient)
        source[case.patient] = earlier or case.split
    chosen = assign_splits(source, known.splits, _SPLIT_SEED)
    torn -= known.splits.keys()
    splits: dict[str, str] = {}
    of_picture: dict[str, str] = {}
    for case in cases:
        split = case.split if case.patient in torn and case.split else chosen[case.patient]
        first = of_picture.setdefault(case.image_sha256, split)
        # a draw must not tear apart what is there twice: that would be a leak of our own making
        splits[case.case_id] = first if case.split is None and case.patient not in known.splits else split
    return splits


def _of_splits(
    dataset: str, cases: Sequence[CaseFacts], splits: Mapping[str, str], known: Known, unread: Set[str | None]
) -> list[Problem]:
    problems = []
    drawn = Counter[str]()
    for case in cases:
        split = splits[case.case_id]
        if case.split is None or case.split == split:
            continue
        if case.patient in known.splits:
            found = f"in {case.split}, but {split} in an earlier version"
            problems.append(Problem("split_carried", case.case_id, found, "the split of first sight is kept"))
        else:
            drawn[split] += 1
    for split, count in sorted(drawn.items()):
        found = f"no case in {split}: {count} drawn from train"
        problems.append(Problem("split_drawn", dataset, found, "a source with every split"))
    counts = Counter(splits.values())
    problems += [
        Problem("empty_split", dataset, f"no case in {split}", "at least one case a split")
        for split in SPLITS
        if not counts[split] and not unread & {split, None}
    ]
    if 0 < counts["test"] < FEW_TEST_CASES:
        expected = f"{FEW_TEST_CASES} or more, or the gate will refuse"
        problems.append(Problem("few_test_cases", dataset, f"{counts['test']} test cases", expected))
    return problems
