"""Steps of a retrain that sleep instead of training and scoring; `scaling.py` puts them in the place of the real ones.

Leases, trials and epochs are real rows; no network is built, and nothing loads TensorFlow. The search is a random one:
Keras Tuner's oracle would load it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from femur_tasks.registry.tables import TrialEpoch
from femur_tasks.search.leases import Lease, Leases, held_trial
from femur_tasks.search.space import REFERENCE
from femur_tasks.search.strategy import Spec
from femur_tasks.search.worker import work
from femur_tasks.steps.context import Context
from femur_tasks.steps.run import conclude

EPOCH_S, EPOCHS, TRIALS = 0.5, 10, 64


@dataclass
class _Sleeper:
    context: Context
    leases: Leases

    def train(self, lease: Lease) -> None:
        for epoch in range(lease.from_epoch, lease.to_epoch):
            time.sleep(EPOCH_S)
            with self.context.registry.writing() as session:
                held_trial(session, lease)
                told = (lease.run_id, lease.search, lease.trial_id, epoch + 1)
                key = dict(zip(("run_id", "search", "trial_id", "epoch"), told, strict=True))
                session.merge(
                    TrialEpoch(**key, loss=0.5, val_dice=0.5, seconds=EPOCH_S, start_s=0.0, at=self.context.now())
                )


def train_family(_context: Context, run_id: str, family: str) -> dict[str, Any]:
    time.sleep(EPOCHS * EPOCH_S)
    return {"run_id": run_id, "family": family}


def work_on_search(context: Context, run_id: str, worker: str) -> dict[str, Any]:
    leases = Leases(context.registry, run_id, "tuned", context.settings.lease_s, context.now)
    leases.open(Spec("random", REFERENCE, EPOCHS, seed=0, samples=TRIALS), {})
    return {"worker": worker, "trials": work(leases, worker, _Sleeper(context, leases).train)}


def train_winner(context: Context, run_id: str) -> dict[str, Any]:
    return train_family(context, run_id, "tuned")


def evaluate(_context: Context, run_id: str) -> dict[str, Any]:
    return {"run_id": run_id}


def decide(context: Context, run_id: str, _actor: str) -> dict[str, Any]:
    with context.registry.writing() as session:
        conclude(session, run_id, "refused", "nothing was trained", context.now())
    return {"state": "refused", "run_id": run_id}


def close_run(_context: Context, run_id: str) -> dict[str, Any]:
    return {"state": "refused", "detail": "nothing was trained", "run_id": run_id}
