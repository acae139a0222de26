"""The gate: a pure function from a policy and evaluations to a verdict. Whatever is missing refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from femur_tasks.evaluation.intervals import Interval, paired_interval
from femur_tasks.registry.evidence import Cases, CaseScore, Evidence
from femur_tasks.registry.policy import Look, Policy, is_number, is_usable


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
    """`promote` or `refuse`, and every rule that was looked at.

    Attributes:
        difference: the interval of the mean paired difference, None where there was none to look at.
        look: which look at these test cases it was; None without one.
        level: what the look spent.
        level_left: what is left of the policy's level for the next ones.
    """

    outcome: str
    reasons: tuple[Reason, ...]
    difference: Interval | None
    look: int | None = None
    level: float | None = None
    level_left: float | None = None

    @property
    def sentence(self) -> str:
        """The verdict in one line: the first rule that failed, else the last one that held."""
        failed = [reason for reason in self.reasons if not reason.passed]
        return f"{self.outcome}: {(failed or self.reasons[-1:])[0].sentence}"


def judge(
    policy: Policy | None,
    cases: Cases,
    challenger: Evidence | None,
    champion: Evidence | None,
    has_champion: bool,
    look: Look | None = None,
) -> Verdict:
    """Decide whether the challenger may take over.

    Args:
        policy: the rules; None refuses.
        cases: what both are compared on.
        challenger: its scores; None refuses.
        champion: scores of the version in service; None although `has_champion` refuses.
        has_champion: False for the first champion of a model, which passes the floors only.
        look: which look at these test cases this is; None: the first.

    Returns:
        A verdict whose reasons hold every rule that could be looked at, in order.
    """
    compared = sorted(set(cases.compared))  # a case counts once, and no verdict hangs on the order of a sum
    blockers = list(_blockers(policy, compared, challenger, champion, has_champion))
    if blockers or policy is None or challenger is None:
        return Verdict("refuse", tuple(blockers), None)
    reasons = [_enough_cases(policy, compared, cases.excluded), *_floors(policy, compared, challenger)]
    look = look or Look(1)
    difference = level = None
    if champion is not None and len(compared) > 1:
        level = look.spends(policy.level)
        difference = paired_interval(_differences(compared, challenger, champion, "dice"), 1 - 2 * level)
        reasons.append(_gain(policy, difference, challenger, champion, look))
        reasons.extend(_slices(policy, compared, cases.slices, challenger, champion))
    outcome = "promote" if all(reason.passed for reason in reasons) else "refuse"
    if level is None:
        return Verdict(outcome, tuple(reasons), None)
    return Verdict(outcome, tuple(reasons), difference, look.number, level, look.left(policy.level))


def _blockers(
    policy: Policy | None,
    compared: Sequence[str],
    challenger: Evidence | None,
    champion: Evidence | None,
    has_champion: bool,
) -> Iterator[Reason]:
    def blocked(code: str, sentence: str) -> Reason:
        return Reason(code, False, None, None, sentence)

    if policy is None:
        yield blocked("no_policy", "there is no policy to judge by")
    elif not is_usable(policy):
        yield blocked("no_rule", "the policy has a rule without a usable threshold")
    if not compared:
        yield blocked("too_few_cases", "the comparison manifest holds no case")
    if challenger is None:
        yield blocked("missing_evaluation", "the challenger has no evaluation on the comparison manifest")
    if has_champion and champion is None:
        yield blocked("missing_champion_evaluation", "the champion has no evaluation on the comparison manifest")
    for who, evidence in (("challenger", challenger), ("champion", champion)):
        if evidence is None:
            continue
        if set(evidence.cases) != set(compared):
            differ = len(set(evidence.cases) ^ set(compared))
            yield blocked("missing_case", f"the {who}'s cases differ from the comparison manifest in {differ}")
        bad = [case for case, score in evidence.cases.items() if not _complete(score)]
        if bad:
            yield blocked(
                "missing_metric", f"the {who} has no usable scores on {len(bad)} cases, first {sorted(bad)[0]}"
            )
        if not all(is_number(cost) and cost for cost in (evidence.megabytes, evidence.latency_ms)):
            yield blocked("missing_cost", f"the {who}'s size or latency was not measured")
    if challenger and champion:
        if challenger.metric != champion.metric:
            yield blocked("different_metric", f"scored by {challenger.metric} and by {champion.metric}")
        both = challenger.cases.keys() & champion.cases.keys()
        uneven = sorted(case for case in both if _sides_of(challenger.cases[case]) != _sides_of(champion.cases[case]))
        if uneven:  # the truth decides which sides there are: it is the same for both
            yield blocked("missing_metric", f"{len(uneven)} cases have a side scored for one alone, first {uneven[0]}")


def _sides_of(score: CaseScore) -> tuple[bool, bool]:
    return score.dice_left is not None, score.dice_right is not None


def _complete(score: CaseScore) -> bool:
    sides = [side for side in (score.dice_left, score.dice_right) if side is not None]
    if score.dice is None or not all(0 <= value <= 1 for value in (score.dice, *sides)):
        return False
    return score.hd95_pct is None or score.hd95_pct >= 0


def _enough_cases(policy: Policy, compared: Sequence[str], excluded: Sequence[str]) -> Reason:
    count, least = len(compared), max(policy.min_test_cases, 2)  # an interval needs two
    left_out = f", {len(excluded)} left out because a model had trained on them" if excluded else ""
    sentence = f"{count} comparison cases{left_out}, at least {least} needed"
    return Reason("too_few_cases", count >= least, count, least, sentence)


def _floors(policy: Policy, compared: Sequence[str], challenger: Evidence) -> Iterator[Reason]:
    dices = _values(compared, challenger)
    mean, worst = math.fsum(dices) / len(dices), min(dices)
    for code, label, value, floor in (
        ("mean_dice_floor", "mean Dice", mean, policy.mean_dice_floor),
        ("worst_dice_floor", "worst case's Dice", worst, policy.worst_dice_floor),
    ):
        yield Reason(code, value >= floor, value, floor, f"{label} {value:.4f}, floor {floor:.4f}")
    failed = sum(dice < policy.failed_dice for dice in dices)
    ceilings = (
        ("hd95_ceiling", "95th percentile of HD95", _hd95_p95(compared, challenger), policy.hd95_ceiling_pct,
         " % of the height"),
        ("failed_share", f"{failed} cases below Dice {policy.failed_dice:g}, a share of", failed / len(dices),
         policy.failed_share_ceiling, ""),
        ("size_ceiling", "the artefact has", challenger.megabytes, policy.megabytes_ceiling, " MB"),
        ("latency_ceiling", "a picture takes", challenger.latency_ms or math.inf, policy.latency_ceiling_ms, " ms"),
    )  # fmt: skip
    for code, label, value, ceiling, unit in ceilings:
        sentence = f"{label} {value:.3g}{unit}, ceiling {ceiling:g}{unit}"
        yield Reason(code, value <= ceiling, value if math.isfinite(value) else None, ceiling, sentence)


def _hd95_p95(compared: Sequence[str], challenger: Evidence) -> float:
    """The smallest HD95 that 95 % of the cases do not exceed; infinite where more than 5 % have none."""
    found = sorted(
        0.0 if score.hd95_pct is None and score.dice == 1 else math.inf if score.hd95_pct is None else score.hd95_pct
        for score in (challenger.cases[case] for case in compared)
    )  # a case whose masks are both empty is in full agreement
    return found[math.ceil(0.95 * len(found)) - 1]


def _gain(policy: Policy, difference: Interval, challenger: Evidence, champion: Evidence, look: Look) -> Reason:
    saving = _saving(challenger, champion)
    least = policy.min_gain
    cheaper = ""
    if policy.cost_saving > 0 and saving >= policy.cost_saving:
        least = min(least, -policy.non_inferiority_margin)
        cheaper = f"; it costs {100 * saving:.0f} % less, so it need not be better"
    sentence = (
        f"mean gain over the champion {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}], the "
        f"lower end must lie above {least:+.4f}{cheaper} (look {look.number} at these test cases, at level "
        f"{look.spends(policy.level):.2g}; {look.left(policy.level):.2g} is left)"
    )
    return Reason("gain", difference.low > least, difference.low, least, sentence)


def _saving(challenger: Evidence, champion: Evidence) -> float:
    """By which share the challenger is smaller or faster, whichever is more, without being worse in the other."""
    ratios = (
        challenger.megabytes / champion.megabytes,
        (challenger.latency_ms or math.inf) / (champion.latency_ms or math.inf),
    )
    return 1 - min(ratios) if max(ratios) <= 1 else 0.0


def _slices(
    policy: Policy,
    compared: Sequence[str],
    slices: Mapping[str, Sequence[str]],
    challenger: Evidence,
    champion: Evidence,
) -> Iterator[Reason]:
    groups = [(f"{side}_femur", f"{side} femur", compared, f"dice_{side}") for side in ("left", "right")]
    groups += [(f"slice:{name}", name, sorted(set(cases)), "dice") for name, cases in sorted(slices.items())]
    for code, label, cases, what in groups:
        differences = _differences(cases, challenger, champion, what)
        if not differences:
            continue
        mean = math.fsum(differences) / len(differences)
        found = f"{label} {mean:+.4f} against the champion's on {len(differences)} cases"
        if len(differences) < policy.min_slice_cases:
            yield Reason(code, True, mean, None, f"{found}, too few to judge")
            continue
        sentence = f"{found}, may not fall behind by more than {policy.slice_margin}"
        yield Reason(code, mean >= -policy.slice_margin, mean, -policy.slice_margin, sentence)


def _values(compared: Sequence[str], evidence: Evidence) -> list[float]:
    return [dice for case in compared if (dice := evidence.cases[case].dice) is not None]


def _differences(compared: Sequence[str], challenger: Evidence, champion: Evidence, what: str) -> list[float]:
    pairs = [(getattr(challenger.cases[case], what), getattr(champion.cases[case], what)) for case in compared]
    return [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
