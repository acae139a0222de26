"""Our Hyperband asks for exactly what Keras Tuner's oracle asks for, however often its state is put away."""

from __future__ import annotations

import gc
import json
import math
import weakref
from collections import Counter
from typing import Any

import keras_tuner
import pytest

from femur_tasks.search.hyperband import Hyperband
from femur_tasks.search.space import REFERENCE, keras_tuner_space
from femur_tasks.search.strategy import Assignment, Spec

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName):DeprecationWarning")


def score_of(values: dict[str, Any], to_epoch: int) -> float:
    """Between 0 and 1, no two configurations alike, better with more epochs."""
    return abs(math.sin(1e6 * values["learning_rate"] + values["beta_1"])) * (1 - 0.9**to_epoch)


def spec(max_epochs: int, seed: int = 0) -> Spec:
    return Spec("hyperband", REFERENCE, max_epochs, seed)


def put_away_and_back(hyperband: Hyperband, told: Spec) -> Hyperband:
    return Hyperband(told, json.loads(json.dumps(hyperband.to_state())))


def driven(max_epochs: int, seed: int, broken: int | None = None) -> list[Assignment]:
    """Every assignment that one worker gets, with the state through JSON before each call; `broken` scores 0."""
    told = spec(max_epochs, seed)
    hyperband = Hyperband(told)
    found: list[Assignment] = []
    while (answer := put_away_and_back(hyperband, told)) and (asked := answer.ask()) != "done":
        assert isinstance(asked, Assignment), "one worker never waits"
        found.append(asked)
        assert len(found) <= 300, "the search does not end"
        hyperband = put_away_and_back(answer, told)
        score = 0.0 if broken == len(found) - 1 else score_of(asked.values, asked.to_epoch)
        hyperband.tell(asked.trial_id, score, asked.to_epoch)
    return found


def keras_tuners_own(max_epochs: int, seed: int, folder: str) -> list[tuple[Any, ...]]:
    """The same search by Keras Tuner's oracle alone: one object, one tuner, its own files."""
    oracle = keras_tuner.oracles.HyperbandOracle(
        objective=keras_tuner.Objective("val_dice", "max"),
        max_epochs=max_epochs,
        factor=3,
        seed=seed + 1,
        hyperparameters=keras_tuner_space(REFERENCE),
    )
    oracle._set_project_dir(folder, "search")
    oracle.verbose = 0
    found = []
    while (trial := oracle.create_trial("tuner")).status == "RUNNING":
        values = trial.hyperparameters.values
        chosen = {name: value for name, value in values.items() if not name.startswith("tuner/")}
        span = values["tuner/initial_epoch"], values["tuner/epochs"]
        found.append((trial.trial_id, chosen, values.get("tuner/trial_id"), values["tuner/round"], *span))
        oracle.update_trial(trial.trial_id, {"val_dice": score_of(chosen, span[1])}, step=span[1])
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    return found


@pytest.mark.parametrize(("max_epochs", "seed"), [(3, 0), (10, 0), (10, 41)])
def test_sequence_equals_keras_tuners_own(max_epochs: int, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    ours = [
        (one.trial_id, one.values, one.parent_id, one.rung, one.from_epoch, one.to_epoch)
        for one in driven(max_epochs, seed)
    ]
    assert ours == keras_tuners_own(max_epochs, seed, str(tmp_path_factory.mktemp("keras_tuner")))


def test_another_seed_draws_other_configurations() -> None:
    first, second = (Hyperband(spec(10, seed)).ask() for seed in (0, 1))
    assert isinstance(first, Assignment)
    assert isinstance(second, Assignment)
    assert first.values != second.values


# Factor 3, one iteration. R = 3 by hand: 3 trials of 1 epoch, the best of them to 3, and 2 new ones of 3.
@pytest.mark.parametrize(
    ("max_epochs", "trials", "configurations", "epochs"), [(3, 6, 5, 11), (10, 30, 22, 120), (27, 70, 49, 375)]
)
def test_allocation(max_epochs: int, trials: int, configurations: int, epochs: int) -> None:
    found = driven(max_epochs, seed=0)
    assert len(found) == trials
    assert sum(one.parent_id is None for one in found) == configurations
    assert sum(one.to_epoch - one.from_epoch for one in found) == epochs
    assert max(one.to_epoch for one in found) == max_epochs


def test_trial_that_advances_goes_on_where_its_parent_ended() -> None:
    found = {one.trial_id: one for one in driven(10, seed=0)}
    advanced = [one for one in found.values() if one.parent_id]
    for one in advanced:
        parent = found[str(one.parent_id)]
        assert one.values == parent.values
        assert one.from_epoch == parent.to_epoch < one.to_epoch
        assert (one.bracket, one.rung) == (parent.bracket, parent.rung + 1)
    assert len({one.parent_id for one in advanced}) == len(advanced) == 8


def test_rungs_advance_the_best_of_the_one_before() -> None:
    found = driven(10, seed=0)
    sizes = Counter((one.bracket, one.rung) for one in found)
    for bracket, rung in sizes:
        if rung == 0:
            continue
        below = [one for one in found if (one.bracket, one.rung) == (bracket, rung - 1)]
        best = sorted(below, key=lambda one: score_of(one.values, one.to_epoch), reverse=True)[: sizes[bracket, rung]]
        here = [one.parent_id for one in found if (one.bracket, one.rung) == (bracket, rung)]
        assert set(here) == {one.trial_id for one in best}


def test_trial_that_counts_as_worst_takes_no_place_of_another() -> None:
    found = driven(10, seed=0, broken=2)
    assert len(found) == 30
    assert not [one for one in found if one.parent_id == found[2].trial_id]
    assert Counter((one.bracket, one.rung) for one in found) == Counter(
        (one.bracket, one.rung) for one in driven(10, seed=0)
    )


def test_open_trials_stay_open_and_the_rung_waits_for_them() -> None:
    hyperband = Hyperband(spec(3))
    opened = [answer for _ in range(5) if isinstance(answer := hyperband.ask(), Assignment)]
    assert len({one.trial_id for one in opened}) == 5
    hyperband = put_away_and_back(hyperband, spec(3))
    assert hyperband.ask() == "idle"
    for one in opened:
        hyperband.tell(one.trial_id, score_of(one.values, one.to_epoch), one.to_epoch)
    hyperband = put_away_and_back(hyperband, spec(3))
    advanced = hyperband.ask()
    assert isinstance(advanced, Assignment)
    assert advanced.parent_id in {one.trial_id for one in opened}
    # two brackets are open: the oracle's own `tuner/bracket` calls this one 0
    assert ([one.bracket for one in opened], advanced.bracket) == ([1, 1, 1, 0, 0], 1)


def test_used_oracles_are_freed() -> None:
    """Leases make one a call, for hours: Keras Tuner's table of locks would keep each of them."""
    hyperband = Hyperband(spec(3))
    asked = hyperband.ask()
    assert isinstance(asked, Assignment)
    hyperband.tell(asked.trial_id, 0.5, 1)
    oracle = weakref.ref(hyperband._oracle)
    del hyperband
    gc.collect()
    assert oracle() is None
