"""Hyperband's schedule, before a trial is drawn: how many trials each rung of each bracket has, and of how many epochs.

Source: Li et al., Hyperband, JMLR 2018, with the sizes that Keras Tuner 1.4.8 gives them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Rung:
    """One rung: `trials` configurations, each trained from `from_epoch` to `to_epoch`."""

    bracket: int
    rung: int
    trials: int
    from_epoch: int
    to_epoch: int


def schedule(max_epochs: int, factor: int) -> list[Rung]:
    """Every rung, the bracket with the most rungs first.

    With s the bracket and i the rung, R the largest epochs and e = ceil(1 + log_factor R):
    ceil(factor^(s - i) e / (s + 1)) trials to epoch ceil(R / factor^(s - i)).
    """
    brackets, left = 0, float(max_epochs)
    while left >= 1:
        left, brackets = left / factor, brackets + 1
    last = math.ceil(1 + math.log(max_epochs, factor))
    found = []
    for bracket in reversed(range(brackets)):
        epochs = 0
        for rung in range(bracket + 1):
            grown = factor ** (bracket - rung)
            before, epochs = epochs, math.ceil(max_epochs / grown)
            found.append(Rung(bracket, rung, math.ceil(last / (bracket + 1) * grown), before, epochs))
    return found
