"""Splits by patient: fixed at first sight, carried into every later version, seeded where the source is silent."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

from femur_tasks.dataset.problems import SPLITS

FRACTIONS: Mapping[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}


def assign_splits(source: Mapping[str, str | None], fixed: Mapping[str, str], seed: int) -> dict[str, str]:
    """The split of every patient.

    Args:
        source: patient -> the split that the source gives, None where it gives none.
        fixed: patient -> split in the earlier versions of the same dataset; these win.
        seed: decides who goes where among patients without a split.

    Returns:
        patient -> split. New patients without one fill up what is furthest below `FRACTIONS`, in an order drawn by
        hash, so that the result does not depend on the order of files. Where the source has no validation or no test
        patient, its share is drawn from the training patients that no earlier version has fixed; one stays there.
    """
    splits = {patient: fixed.get(patient) or split for patient, split in source.items()}
    counts = Counter(split for split in splits.values() if split)
    for patient in _shuffled((patient for patient, split in splits.items() if split is None), seed):
        total = counts.total() + 1
        chosen = max(SPLITS, key=lambda split: FRACTIONS[split] * total - counts[split])
        splits[patient] = chosen
        counts[chosen] += 1
    for missing in ("test", "val"):
        if counts[missing]:
            continue
        free = (patient for patient, split in splits.items() if split == "train" and patient not in fixed)
        share = max(1, round(FRACTIONS[missing] * counts.total()))
        silent_first = sorted(_shuffled(free, seed), key=lambda patient: source[patient] is not None)
        for patient in silent_first[: min(share, counts["train"] - 1)]:
            splits[patient] = missing
            counts[missing] += 1
            counts["train"] -= 1
    return {patient: split for patient, split in splits.items() if split}


def _shuffled(patients: Iterable[str], seed: int) -> list[str]:
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())
