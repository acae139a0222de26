"""The gate: a pure function from a policy and evaluations to a verdict. Whatever is missing refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from femur_tasks.evaluation.intervals import Interval, paired_interval


@dataclass(frozen=True)
class Policy:
    """What a challenger must show. Dice from 0 to 1; a None switches nothing off, it refuses.

    Attributes:
        name: how verdicts call this policy.
        min_test_cases: fewest cases on which any comparison means something.
        mean_dice_floor: least mean Dice over the comparison manifest.
        worst_dice_floor: least Dice of the worst case.
        confidence: level of the interval of the mean paired difference, such as 0.95.
        min_gain: the interval's lower end must lie above this; 0 asks for superiority, below 0 for non-inferiority.
        side_margin: by how much the mean Dice of the left or of the right femur may fall behind the champion's.
    """

    name: str
    min_test_cases: int
    mean_dice_floor: float
    worst_dice_floor: float
    confidence: float
    min_gain: float
    side_margin: float


def policy_of(rules: Any) -> Policy | None:
    """The policy that a policy file holds, None where it holds none.

    A rule that is missing or no finite number becomes None, so that `judge` refuses and a row can say why.
    """
    if not isinstance(rules, Mapping) or not rules:
        return None
    bounds = {field.name: rules.get(field.name) for field in fields(Policy) if field.name != "name"}
    usable: dict[str, Any] = {name: bound if _is_number(bound) else None for name, bound in bounds.items()}
    return Policy(name=str(rules.get("name", "")), **usable)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class CaseScore:
    """Hard Dice of one case at full size; a side is None where the case has no femur on it."""

    dice: float | None
    dice_left: float | None
    dice_right: float | None


@dataclass(frozen=True)
class Evidence:
    """Scores of one model version by case id, and the metric implementation that made them."""

    metric: str
    cases: Mapping[str, CaseScore]


@dataclass(frozen=True)
class Reason:
    """One rule: what was found, what was asked, whether it held, and a sentence that says so."""

    code: str
    passed: bool
    value: float | None
    threshold: float | None
    sentence: str


@dataclass(frozen=True)
class Verdict:
    """`promote` or `refuse`, every rule that was looked at, and the interval where there was a champion."""

    outcome: str
    reasons: tuple[Reason, ...]
    difference: Interval | None

    @property
    def sentence(self) -> str:
        """The verdict in one line: the first rule that failed, else the last one that held."""
        failed = [reason for reason in self.reasons if not reason.passed]
        return f"{self.outcome}: {(failed or self.reasons[-1:])[0].sentence}"


def judge(
    policy: Policy | None,
    manifest: Sequence[str],
    challenger: Evidence | None,
    champion: Evidence | None,
    has_champion: bool,
) -> Verdict:
    """Decide whether the challenger may take over.

    Args:
        policy: the rules; None refuses.
        manifest: case ids of the comparison manifest, on which both must be scored completely.
        challenger: its scores; None refuses.
        champion: scores of the version in service; None although `has_champion` refuses.
        has_champion: False for the first champion of a model, which passes the floors only.

    Returns:
        A verdict whose reasons hold every rule that could be looked at, in order.
    """
    manifest = sorted(set(manifest))  # a case counts once, and no verdict hangs on the order of a sum
    blockers = list(_blockers(policy, manifest, challenger, champion, has_champion))
    if blockers or policy is None or challenger is None:
        return Verdict("refuse", tuple(blockers), None)
    reasons = [_enough_cases(policy, manifest), *_floors(policy, manifest, challenger)]
    difference = None
    if champion is not None and len(manifest) > 1:
        difference = paired_interval(_differences(manifest, challenger, champion, "dice"), policy.confidence)
        reasons.append(_gain(policy, difference))
        reasons.extend(_sides(policy, manifest, challenger, champion))
    promote = all(reason.passed for reason in reasons)
    return Verdict("promote" if promote else "refuse", tuple(reasons), difference)


def _blockers(
    policy: Policy | None,
    manifest: Sequence[str],
    challenger: Evidence | None,
    champion: Evidence | None,
    has_champion: bool,
) -> Iterator[Reason]:
    def blocked(code: str, sentence: str) -> Reason:
        return Reason(code, False, None, None, sentence)

    if policy is None:
        yield blocked("no_policy", "there is no policy to judge by")
    elif not _is_usable(policy):
        yield blocked("no_rule", "the policy has a rule without a usable threshold")
    if not manifest:
        yield blocked("too_few_cases", "the comparison manifest holds no case")
    if challenger is None:
        yield blocked("missing_evaluation", "the challenger has no evaluation on the comparison manifest")
    if has_champion and champion is None:
        yield blocked("missing_champion_evaluation", "the champion has no evaluation on the comparison manifest")
    for who, evidence in (("challenger", challenger), ("champion", champion)):
        if evidence is None:
            continue
        if set(evidence.cases) != set(manifest):
            differ = len(set(evidence.cases) ^ set(manifest))
            yield blocked("missing_case", f"the {who}'s cases differ from the comparison manifest in {differ}")
        bad = [case for case, score in evidence.cases.items() if not _complete(score)]
        if bad:
            yield blocked("missing_metric", f"the {who} has no usable Dice on {len(bad)} cases, first {sorted(bad)[0]}")
    if challenger and champion:
        if challenger.metric != champion.metric:
            yield blocked("different_metric", f"scored by {challenger.metric} and by {champion.metric}")
        both = challenger.cases.keys() & champion.cases.keys()
        uneven = sorted(case for case in both if _sides_of(challenger.cases[case]) != _sides_of(champion.cases[case]))
        if uneven:  # the truth decides which sides there are: it is the same for both
            yield blocked("missing_metric", f"{len(uneven)} cases have a side scored for one alone, first {uneven[0]}")


def _is_usable(policy: Policy) -> bool:
    bounds = [getattr(policy, field.name) for field in fields(policy) if field.name != "name"]
    return all(map(_is_number, bounds)) and 0 < policy.confidence < 1


def _sides_of(score: CaseScore) -> tuple[bool, bool]:
    return score.dice_left is not None, score.dice_right is not None


def _complete(score: CaseScore) -> bool:
    sides = [side for side in (score.dice_left, score.dice_right) if side is not None]
    return score.dice is not None and all(0 <= value <= 1 for value in (score.dice, *sides))


def _enough_cases(policy: Policy, manifest: Sequence[str]) -> Reason:
    count, least = len(manifest), max(policy.min_test_cases, 2)  # an interval needs two
    return Reason("too_few_cases", count >= least, count, least, f"{count} comparison cases, at least {least} needed")


def _floors(policy: Policy, manifest: Sequence[str], challenger: Evidence) -> Iterator[Reason]:
    scores = _values(manifest, challenger)
    mean, worst = math.fsum(scores) / len(scores), min(scores)
    for code, label, value, floor in (
        ("mean_dice_floor", "mean Dice", mean, policy.mean_dice_floor),
        ("worst_dice_floor", "worst case's Dice", worst, policy.worst_dice_floor),
    ):
        yield Reason(code, value >= floor, value, floor, f"{label} {value:.4f}, floor {floor:.4f}")


def _gain(policy: Policy, difference: Interval) -> Reason:
    interval = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    sentence = f"mean gain over the champion {interval}, the lower end must lie above {policy.min_gain:+.4f}"
    return Reason("gain", difference.low > policy.min_gain, difference.low, policy.min_gain, sentence)


def _sides(policy: Policy, manifest: Sequence[str], challenger: Evidence, champion: Evidence) -> Iterator[Reason]:
    for side in ("left", "right"):
        differences = _differences(manifest, challenger, champion, f"dice_{side}")
        if not differences:
            continue
        mean = math.fsum(differences) / len(differences)
        sentence = (
            f"{side} femur {mean:+.4f} against the champion's, may not fall behind by more than {policy.side_margin}"
        )
        yield Reason(f"{side}_femur", mean >= -policy.side_margin, mean, -policy.side_margin, sentence)


def _values(manifest: Sequence[str], evidence: Evidence) -> list[float]:
    return [dice for case in manifest if (dice := evidence.cases[case].dice) is not None]


def _differences(manifest: Sequence[str], challenger: Evidence, champion: Evidence, what: str) -> list[float]:
    pairs = [(getattr(challenger.cases[case], what), getattr(champion.cases[case], what)) for case in manifest]
    return [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
