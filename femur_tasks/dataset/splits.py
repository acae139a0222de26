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
        patient -> split. New patients without one fill up what is furthest below `FRACTIONS`, in an order
        drawn by hash, so that the result does not depend on the order of files.
    """
    splits = {patient: fixed.get(patient) or split for patient, split in source.items()}
    counts = Counter(split for split in splits.values() if split)
    for patient in _shuffled((patient for patient, split in splits.items() if split is None), seed):
        total = counts.total() + 1
        chosen = max(SPLITS, key=lambda split: FRACTIONS[split] * total - counts[split])
        splits[patient] = chosen
        counts[chosen] += 1
    return {patient: split for patient, split in splits.items() if split}


def _shuffled(patients: Iterable[str], seed: int) -> list[str]:
    return sorted(patients, key=lambda patient: hashlib.sha256(f"{seed}:{patient}".encode()).digest())
