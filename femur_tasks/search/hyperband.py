"""Hyperband as a value: Keras Tuner's oracle with its state in one JSON object instead of files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import keras_tuner
from keras_tuner.src.engine import oracle as engine
from keras_tuner.src.engine.trial import Trial

from femur_tasks.search.space import keras_tuner_space
from femur_tasks.search.strategy import Assignment, Spec

_OBJECTIVE = "val_dice"


class _Oracle(keras_tuner.oracles.HyperbandOracle):  # type: ignore[misc]
    """The oracle without its own files: the registry keeps the state."""

    def save(self) -> None: ...

    def _save_trial(self, trial: Trial) -> None: ...


class Hyperband:
    """Hands out assignments and takes their scores (validation Dice, higher is better).

    Source: Li et al., Hyperband, JMLR 2018, as implemented by Keras Tuner.

    Args:
        spec: the search.
        state: what `to_state` gave, None at the start; open trials stay open.
    """

    foresight = 1

    def __init__(self, spec: Spec, state: dict[str, Any] | None = None) -> None:
        self._oracle = _Oracle(
            objective=keras_tuner.Objective(_OBJECTIVE, "max"),
            max_epochs=spec.max_epochs,
            factor=spec.factor,
            seed=spec.seed + 1,  # the oracle takes 0 for "none given"
            hyperparameters=keras_tuner_space(spec.space),
            allow_new_entries=False,
            max_consecutive_failed_trials=1 << 30,
        )
        self._oracle.verbose = 0
        if state:
            self._oracle.trials = {saved["trial_id"]: Trial.from_state(saved) for saved in state["trials"]}
            self._oracle.set_state(state["oracle"])

    def ask(self) -> Assignment | Literal["idle", "done"]:
        # each lease is a tuner of its own: the oracle gives a known tuner its unfinished trial again
        with self._asked() as oracle:
            trial = oracle.create_trial(f"lease-{len(oracle.trials)}")
        if trial.status == "IDLE":
            return "idle"
        if trial.status == "STOPPED":
            return "done"
        values = dict(trial.hyperparameters.values)
        facts = {name: values.pop(f"tuner/{name}", None) for name in ("trial_id", "initial_epoch", "epochs", "round")}
        values.pop("tuner/bracket", None)
        return Assignment(
            trial_id=trial.trial_id,
            values=values,
            parent_id=facts["trial_id"],
            bracket=self._bracket_of(trial.trial_id),
            rung=int(facts["round"] or 0),
            from_epoch=int(facts["initial_epoch"] or 0),
            to_epoch=int(facts["epochs"] or 0),
        )

    def _bracket_of(self, trial_id: str) -> int:
        # the oracle's own `tuner/bracket` is wrong on trials that advanced
        found: int = next(
            bracket["bracket_num"]
            for bracket in self._oracle._brackets
            if any(info["id"] == trial_id for rung in bracket["rounds"] for info in rung)
        )
        return found

    def tell(self, trial_id: str, score: float, best_epoch: int) -> None:
        with self._asked() as oracle:
            trial = oracle.update_trial(trial_id, {_OBJECTIVE: score}, step=best_epoch)
            trial.status = "COMPLETED"
            oracle.end_trial(trial)

    @contextmanager
    def _asked(self) -> Iterator[_Oracle]:
        """The oracle, forgotten by Keras Tuner's table of locks, which would keep every oracle for ever."""
        try:
            yield self._oracle
        finally:
            for table in (engine.LOCKS, engine.THREADS):
                table.pop(self._oracle, None)

    def to_state(self) -> dict[str, Any]:
        trials = [trial.get_state() for trial in self._oracle.trials.values()]
        return {"oracle": self._oracle.get_state(), "trials": trials}
