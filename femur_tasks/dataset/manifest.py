"""The manifest: what a dataset version is, in a form whose digest depends on its cases alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class ManifestCase:
    """One case of a version. Digests are of decoded pixels, sizes are the original's."""

    case_id: str
    patient: str
    split: str
    image_sha256: str
    mask_sha256: str
    height_px: int
    width_px: int
    spacing_mm: tuple[float, float] | None
    raw_image_key: str
    raw_mask_key: str


@dataclass(frozen=True)
class ShardRef:
    """A packed file of cases in the store, and the ids of its cases in their order in it."""

    key: str
    case_ids: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """A dataset version: its cases and, by split, its shards.

    Attributes:
        femur: the class numbers of the femur in the raw masks.
    """

    dataset: str
    size: int
    femur: tuple[int, ...]
    cases: tuple[ManifestCase, ...]
    shards: Mapping[str, tuple[ShardRef, ...]]

    @cached_property
    def digest(self) -> str:
        """sha256 over dataset, size and the cases' content in the order of their ids; shards and files left out.

        A patient stands there as the first of its cases: the same data has one digest under every pseudonym key.
        """
        ordered = sorted(self.cases, key=lambda case: case.case_id)
        first: dict[str, str] = {}
        for case in ordered:
            first.setdefault(case.patient, case.case_id)
        identity = [
            [case.case_id, first[case.patient], case.split, case.image_sha256, case.mask_sha256, case.spacing_mm]
            for case in ordered
        ]
        return canonical_digest({"dataset": self.dataset, "size": self.size, "cases": identity})

    def shard_keys(self, split: str) -> list[str]:
        """The keys of a split's shards, in order."""
        return [shard.key for shard in self.shards[split]]

    def to_json(self) -> bytes:
        """The bytes that are stored."""
        # asdict copies every field deeply, which takes seconds at 100,000 cases
        fields = {**vars(self), "cases": [vars(case) for case in self.cases]}
        fields["shards"] = {split: [vars(shard) for shard in shards] for split, shards in self.shards.items()}
        return canonical_json({**fields, "digest": self.digest})

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """Read what `to_json` wrote."""
        fields = json.loads(data)
        cases = tuple(
            ManifestCase(**{**case, "spacing_mm": tuple(case["spacing_mm"]) if case["spacing_mm"] else None})
            for case in fields["cases"]
        )
        shards = {
            split: tuple(ShardRef(shard["key"], tuple(shard["case_ids"])) for shard in shards)
            for split, shards in fields["shards"].items()
        }
        return cls(fields["dataset"], fields["size"], tuple(fields["femur"]), cases, shards)


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no white space: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def canonical_digest(value: Any) -> str:
    """sha256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def comparison_cases(
    test_cases: Iterable[tuple[str, str]], trained_images: Iterable[Sequence[str] | frozenset[str]]
) -> tuple[list[str], list[str]]:
    """The cases on which models are compared, and those left out.

    Args:
        test_cases: (case id, image sha256) of the new version's test split.
        trained_images: for each model compared, the image digests that it trained on.

    Returns:
        Case ids to score in order, and the ids of test cases that one of the models has trained on.
    """
    seen = frozenset[str]().union(*trained_images)
    cases = sorted(test_cases)
    return [case for case, image in cases if image not in seen], [case for case, image in cases if image in seen]
