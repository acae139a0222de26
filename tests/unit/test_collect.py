"""Garbage collection: what anybody may still need stays, all else goes, and it says beforehand what would."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from femur_tasks import storage
from femur_tasks.dataset.manifest import Manifest
from femur_tasks.errors import DigestMismatch, FemurError, WasCollected
from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import promote_version
from femur_tasks.registry.tables import (
    CollectedVersion,
    DatasetVersion,
    Fit,
    FitEpoch,
    ModelCard,
    Run,
    Search,
    Trial,
    TrialEpoch,
)
from femur_tasks.steps.champion import promote_by_hand
from femur_tasks.steps.collect import LEAST_GRACE, Collected, collect
from femur_tasks.steps.context import Context
from femur_tasks.steps.journal import TrialJournal
from femur_tasks.steps.verify import verify
from femur_tasks.storage import MemoryStore, digest_in
from tests import registry_rows as rows
from tests.conftest import ContextHere, settings_of

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
OLD, YOUNG = NOW - 9 * DAY, NOW - DAY / 2


@pytest.fixture
def place(context: Context) -> Context:
    return replace(context, now=lambda: NOW)


def stored(context: Context, data: str, kind: str, at: datetime) -> str:
    assert isinstance(context.store, MemoryStore)
    key = context.store.put(data.encode(), kind)
    context.store._times[key] = at
    return key


@dataclass(frozen=True)
class Made:
    """A model version with the keys that are its own."""

    version: int
    family: str
    is_old: bool
    is_running: bool
    keys: tuple[str, ...]


def make(context: Context, version: int, family: str, is_old: bool = True, is_running: bool = False) -> Made:
    at = OLD if is_old else YOUNG
    weights, onnx, page, facts = (
        stored(context, f"{kind} {version}", kind, at) for kind in ("artefacts", "onnx", "cards", "card_facts")
    )
    with context.registry.writing() as session:
        digest = rows.digest_of("v1")
        if session.get(DatasetVersion, digest) is None:
            rows.dataset_version(session)
        model = rows.model_version(
            session, version, digest, family=family, artefact_key=weights, artefact_sha256=digest_in(weights),
            onnx_key=onnx, onnx_sha256=digest_in(onnx), created_at=at,
        )  # fmt: skip
        session.add(ModelCard(model_version_id=model.id, html_key=page, json_key=facts, created_at=at))
        run = session.get_one(Run, model.run_id)
        run.state, run.finished_at = ("running", None) if is_running else ("refused", at)
    return Made(version, family, is_old, is_running, (weights, onnx, page, facts))


def with_manifest(context: Context) -> None:
    key = stored(context, Manifest("femur", 32, (), (), {}).to_json().decode(), "manifests", OLD)
    with context.registry.writing() as session:
        version = session.get(DatasetVersion, rows.digest_of("v1")) or rows.dataset_version(session)
        version.manifest_key = key


def there(context: Context, keys: tuple[str, ...]) -> set[bool]:
    return {context.store.stat(key) is not None for key in keys}


# ---- any history


VERSIONS = st.tuples(st.sampled_from(["baseline", "unet", "tuned"]), st.booleans(), st.booleans())
HISTORIES = st.tuples(
    st.lists(VERSIONS, min_size=1, max_size=12),
    st.lists(st.integers(0, 11), max_size=6),
    st.integers(1, 3),
    st.lists(st.booleans(), max_size=4),
)


@settings(max_examples=60, deadline=None)
@given(history=HISTORIES)
def test_whatever_happened_what_is_needed_stays_and_all_else_goes(
    migrated_sqlite: Path,
    history: tuple[list[tuple[str, bool, bool]], list[int], int, list[bool]],
) -> None:
    versions, moves, keep, orphans = history
    with TemporaryDirectory() as folder:
        chosen = settings_of(Path(folder))
        shutil.copy(migrated_sqlite, Path(folder) / "registry.db")
        context = ContextHere(Registry(chosen.database_url), MemoryStore(), chosen, lambda: NOW)
        with_manifest(context)
        made = [make(context, number, *given) for number, given in enumerate(versions, 1)]
        served: set[int] = set()
        for index in moves:
            version = index % len(made) + 1
            try:
                with context.registry.writing() as session:
                    promote_version(session, "femur", version, "cli:ann", "why", True, NOW)
                served.add(version)
            except FemurError:
                pass  # champion already
        loose = [
            (is_old, stored(context, f"loose {n}", "raw", OLD if is_old else YOUNG)) for n, is_old in enumerate(orphans)
        ]
        planned = collect(context, keep, DAY, is_dry_run=True, is_forced=True)
        found = collect(context, keep, DAY, is_forced=True)
        again = collect(context, keep, DAY, is_forced=True)
        assert (planned, again) == (found, Collected((), (), ())), "what it said it would do, and once"
        newest, goes = Counter[str](), []
        for one in reversed(made):
            newest[one.family] += 1
            is_needed = one.version in served or newest[one.family] <= keep or not one.is_old or one.is_running
            assert there(context, one.keys) == {is_needed}, one
            if not is_needed:
                goes.append(f"femur:{one.version}")
        assert sorted(found.versions) == sorted(goes)
        assert [context.store.stat(key) is None for _, key in loose] == [is_old for is_old, _ in loose]
        wrong = [one for one in verify(context, DAY)[0] if one.code != "bad_signature"]
        assert wrong == []
        context.registry.engine.dispose()


# ---- by hand


def test_dry_run_changes_nothing(place: Context) -> None:
    with_manifest(place)
    made = [make(place, number, "unet") for number in (1, 2, 3)]
    found = collect(place, 1, DAY, is_dry_run=True)
    assert found.versions == ("femur:2", "femur:1")
    assert found.bytes == sum(one.size for one in found.objects) > 0
    assert {flag for one in made for flag in there(place, one.keys)} == {True}
    assert collect(place, 1, DAY, is_dry_run=True) == found


def test_collection_that_was_killed_before_it_deleted_goes_on_at_the_next(
    place: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_manifest(place)
    first, _ = make(place, 1, "unet"), make(place, 2, "unet")

    def killed(key: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(place.store, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            collect(place, 1, DAY)
    assert there(place, first.keys) == {True}
    found = collect(place, 1, DAY, is_forced=True)
    assert (found.versions, {one.key for one in found.objects}) == ((), set(first.keys))


def test_collected_version_is_never_champion(place: Context) -> None:
    with_manifest(place)
    make(place, 1, "unet"), make(place, 2, "unet")
    collect(place, 1, DAY)
    with pytest.raises(FemurError, match=r"femur:1, collected"), place.registry.writing() as session:
        promote_version(session, "femur", 1, "cli:ann", "why", True, NOW)
    with place.registry.writing() as session:
        promote_version(session, "femur", 2, "cli:ann", "why", True, NOW)


def test_nothing_goes_where_a_manifest_cannot_be_read(place: Context) -> None:
    with_manifest(place)
    made = make(place, 1, "unet")
    loose = stored(place, "perhaps a picture", "raw", OLD)
    with place.registry.writing() as session:
        manifest_key = session.get_one(DatasetVersion, rows.digest_of("v1")).manifest_key
    assert isinstance(place.store, MemoryStore)
    place.store._objects[manifest_key] += b" "
    with pytest.raises(DigestMismatch):
        collect(place, 1, DAY)
    assert there(place, (*made.keys, loose)) == {True}


def test_what_is_stored_again_meanwhile_stays(place: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = stored(place, "weights", "artefacts", OLD)
    listed = list(place.store.list(""))
    monkeypatch.setattr(place.store, "list", lambda prefix: iter(listed))
    place.store.put(b"weights", "artefacts")
    assert collect(place, 1, DAY, is_forced=True).objects == ()
    assert there(place, (loose,)) == {True}


def test_object_that_two_versions_name_stays_with_the_one_that_stays(place: Context) -> None:
    with_manifest(place)
    first, second = make(place, 1, "unet"), make(place, 2, "unet")
    with place.registry.writing() as session:
        run = rows.run(session, "again", rows.digest_of("v1"), model="other")
        run.state, run.finished_at = "refused", OLD
    with place.registry.writing() as session:
        rows.model_version(session, 1, rows.digest_of("v1"), "twin", artefact_key=first.keys[0], created_at=OLD)
    found = collect(place, 1, DAY)
    assert found.versions == ("femur:1",)
    assert there(place, (first.keys[0], *second.keys)) == {True}
    assert there(place, first.keys[1:]) == {False}


@pytest.mark.parametrize(
    ("state", "at", "goes"),
    [("promoted", OLD, True), ("failed", OLD, True), ("promoted", YOUNG, False), ("running", None, False)],
    ids=["ended", "failed", "just ended", "running"],
)
def test_checkpoints_go_with_runs_that_ended(place: Context, state: str, at: datetime | None, goes: bool) -> None:
    key = stored(place, "state", "checkpoints", OLD)
    with place.registry.writing() as session:
        run = rows.run(session, "night", rows.dataset_version(session).digest)
        run.state, run.finished_at = state, at
        session.add(Fit(run_id="night", family="unet", planned_epochs=1, checkpoint_key=key, best_key=key))
    with_manifest(place)
    assert collect(place, 1, DAY).runs == (("night",) if goes else ())
    assert there(place, (key,)) == {not goes}


@pytest.mark.parametrize("sign", ["epoch", "trial's epoch", "lease"])
def test_failed_run_that_is_at_work_again_keeps_all_that_it_has(place: Context, sign: str) -> None:
    with_manifest(place)
    made = make(place, 1, "unet"), make(place, 2, "unet")
    key = stored(place, "state", "checkpoints", OLD)
    with place.registry.writing() as session:
        run = session.get_one(Run, "femur-run-1")
        run.state, run.finished_at = "failed", OLD
        session.add(Fit(run_id=run.run_id, family="tuned", planned_epochs=9, checkpoint_key=key, best_key=key))
        session.add(
            Search(
                run_id=run.run_id, search="tuned", strategy="hyperband", space={}, max_epochs=9, factor=3, seed=0,
                fixed={}, state="open", waits=False, strategy_state={},
            )
        )  # fmt: skip
        session.flush()
        session.add(
            Trial(
                run_id=run.run_id, search="tuned", trial_id="0000", hyperparameters={}, bracket=0, rung=0, from_epoch=0,
                to_epoch=3, state="running", told=False, failures=0, owner="worker-0", token=1, detail="",
                lease_expires_at=NOW if sign == "lease" else OLD, checkpoint_key=key,
            )
        )  # fmt: skip
        session.flush()
        told = {"run_id": run.run_id, "epoch": 1, "loss": 1.0, "val_dice": 0.1, "seconds": 1.0}
        if sign == "epoch":
            session.add(FitEpoch(**told, family="tuned", at=YOUNG))
        elif sign == "trial's epoch":
            session.add(TrialEpoch(**told, search="tuned", trial_id="0000", at=YOUNG))
    assert collect(place, 1, DAY, is_forced=True) == Collected((), (), ())
    assert there(place, (key, *made[0].keys, *made[1].keys)) == {True}


def test_store_of_another_registry_is_left_alone(place: Context) -> None:
    loose = [stored(place, f"somebody's {number}", "raw", OLD) for number in range(3)]
    with pytest.raises(FemurError, match=r"3 of 3 objects that no row names") as told:
        collect(place, 1, DAY)
    assert "--force" in told.value.todo
    assert there(place, tuple(loose)) == {True}
    assert len(collect(place, 1, DAY, is_forced=True).objects) == 3


def test_nothing_is_recorded_where_nothing_can_be_deleted(place: Context) -> None:
    with_manifest(place)
    make(place, 1, "unet"), make(place, 2, "unet")
    with place.registry.reading() as session:
        manifest_key = session.get_one(DatasetVersion, rows.digest_of("v1")).manifest_key
    assert isinstance(place.store, MemoryStore)
    place.store._objects[manifest_key] += b" "
    with pytest.raises(DigestMismatch):
        collect(place, 1, DAY)
    with place.registry.reading() as session:
        assert session.scalars(select(CollectedVersion)).all() == []


def test_grace_time_is_longer_than_what_the_store_takes_for_new(place: Context) -> None:
    assert LEAST_GRACE > storage._FRESH
    with pytest.raises(FemurError, match="grace time of 2:00:00 or more"):
        collect(place, 1, timedelta(hours=1))


def test_person_who_promotes_what_was_collected_is_told_so(place: Context) -> None:
    with_manifest(place)
    make(place, 1, "unet"), make(place, 2, "unet")
    collect(place, 1, DAY)
    with pytest.raises(WasCollected, match=r"femur:1, collected on 2026-06-01") as told:
        promote_by_hand(place, "femur", 1, "cli:ann", "why", is_override=True)
    assert "Train it again" in told.value.todo


def test_keeping_none_is_refused(place: Context) -> None:
    with pytest.raises(FemurError, match="1 version of each family or more"):
        collect(place, 0, DAY)


def test_trial_whose_parents_checkpoint_was_collected_does_not_start_anew(place: Context) -> None:
    class Advanced(TrialJournal):
        def __init__(self) -> None:
            super().__init__(place.registry, place.store, place.now, None)  # type: ignore[arg-type]

        def _row(self, session: Session) -> Trial:
            return Trial(trial_id="0007", parent_id="0001", checkpoint_key=None, best_key=None)

    with pytest.raises(WasCollected, match="trial 0007 goes on from"):
        Advanced().kept()
