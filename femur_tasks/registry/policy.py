"""The gate's policy: its rules, and how it spends its level over many looks at the same test cases."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Policy:
    """What a challenger must show. Dice from 0 to 1; a None switches nothing off, it refuses.

    Attributes:
        name: how verdicts call this policy.
        min_test_cases: fewest cases on which any comparison means something.
        mean_dice_floor: least mean Dice over the comparison manifest.
        worst_dice_floor: least Dice of the worst case.
        hd95_ceiling_pct: most that the 95th percentile of the cases' HD95 may be, in per cent of the picture's height;
            a case without a distance, because one mask is empty, counts as infinite.
        failed_dice: below this a case has failed.
        failed_share_ceiling: most that the share of failed cases may be.
        megabytes_ceiling, latency_ceiling_ms: most that an artefact may weigh, and a picture may take.
        level: chance of promoting a model that is no better, one-sided, over all looks at the same test cases.
        min_gain: the mean gain must be above this, shown at the look's share of the level.
        cost_saving: a model that is smaller or faster by this share need not be better, only not inferior; 0: never.
        non_inferiority_margin: by how much its mean Dice may then be lower.
        slice_margin: by how much the mean Dice of a slice may fall behind the champion's.
        min_slice_cases: slices with fewer cases are listed, not judged.
    """

    name: str
    min_test_cases: int
    mean_dice_floor: float
    worst_dice_floor: float
    hd95_ceiling_pct: float
    failed_dice: float
    failed_share_ceiling: float
    megabytes_ceiling: float
    latency_ceiling_ms: float
    level: float
    min_gain: float
    cost_saving: float
    non_inferiority_margin: float
    slice_margin: float
    min_slice_cases: int


def policy_of(rules: Any) -> Policy | None:
    """The policy that a policy file holds, None where it holds none.

    A rule that is missing or no finite number becomes None, so that `judge` refuses and a row can say why.
    """
    if not isinstance(rules, Mapping) or not rules:
        return None
    bounds = {one.name: rules.get(one.name) for one in fields(Policy) if one.name != "name"}
    usable: dict[str, Any] = {name: bound if is_number(bound) else None for name, bound in bounds.items()}
    return Policy(name=str(rules.get("name", "")), **usable)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_usable(policy: Policy) -> bool:
    """Whether every rule has a threshold that means something."""
    bounds = {one.name: getattr(policy, one.name) for one in fields(policy) if one.name != "name"}
    if not all(map(is_number, bounds.values())):
        return False
    no_less = all(bounds[name] >= 0 for name in ("non_inferiority_margin", "slice_margin", "min_slice_cases"))
    return 0 < policy.level < 0.5 and 0 <= policy.cost_saving < 1 and no_less


@dataclass(frozen=True)
class Look:
    """Which look at the same test cases this is, from 1: each spends a share of the policy's level.

    Look k spends level / (k (k + 1)): half of it, a sixth, a twelfth. All looks together never spend more than the
    level, and after k of them level / (k + 1) is left.
    """

    number: int

    def spends(self, level: float) -> float:
        """The one-sided level of this look."""
        return level / (self.number * (self.number + 1))

    def left(self, level: float) -> float:
        """What is left after it."""
        return level / (self.number + 1)
