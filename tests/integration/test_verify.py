"""The audit of the whole finds each thing that is wrong, and nothing where nothing is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, text, update

from femur_tasks.dataset.manifest import Manifest
from femur_tasks.registry.tables import Champion, DatasetVersion, Fit, ModelVersion
from femur_tasks.steps.context import Context
from femur_tasks.steps.journal import forget
from femur_tasks.steps.verify import verify
from femur_tasks.storage import digest_in

DAY = timedelta(days=1)


def codes(context: Context, grace: timedelta = DAY) -> list[str]:
    return [finding.code for finding in verify(context, grace)[0]]


def keys(context: Context) -> list[str]:
    with context.registry.reading() as session:
        version = session.scalars(select(DatasetVersion)).one()
        manifest = Manifest.from_json(context.store.get(version.manifest_key))
        shards = [key for split in manifest.shards for key in manifest.shard_keys(split)]
        case = manifest.cases[0]
        return [version.manifest_key, shards[0], case.raw_image_key, case.raw_mask_key]


def test_nothing_is_found_where_nothing_is_wrong(whole: Context) -> None:
    found, read = verify(whole, DAY)
    assert found == []
    assert read == len([one for one in whole.store.list("") if digest_in(one.key)])


def test_checkpoint_that_is_superseded_meanwhile_is_no_loss(whole: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    key = whole.store.put(b"state", "checkpoints")
    with whole.registry.writing() as session:
        session.add(Fit(run_id="femur-run-1", family="unet", planned_epochs=1, checkpoint_key=key, best_key=key))
    get = whole.store.get

    def superseding(wanted: str) -> bytes:
        if wanted == key:
            forget(whole.registry, whole.store, "femur-run-1", "unet")
        return get(wanted)

    monkeypatch.setattr(whole.store, "get", superseding)
    assert codes(whole) == []


def test_damaged_manifest_makes_no_orphans_of_its_pictures(whole: Context) -> None:
    whole.store.put_named(b"no manifest", keys(whole)[0])
    assert codes(whole, timedelta(0)) == ["damaged_object"]


@pytest.mark.parametrize("which", range(4), ids=["manifest", "shard", "raw picture", "raw mask"])
def test_object_that_is_gone_or_damaged_is_named(whole: Context, which: int) -> None:
    key = keys(whole)[which]
    data = whole.store.get(key)
    whole.store.put_named(data + b"x", key)
    (finding, *others) = verify(whole, DAY)[0]
    assert (finding.code, others) == ("damaged_object", [])
    assert key in finding.what
    whole.store.delete(key)
    assert codes(whole) == ["missing_object"]


def test_artefact_that_is_gone_is_named_with_its_model_version(whole: Context) -> None:
    with whole.registry.reading() as session:
        key = session.scalars(select(ModelVersion.artefact_key).where(ModelVersion.version == 2)).one()
    whole.store.delete(key)
    (finding,) = verify(whole, DAY)[0]
    assert (finding.code, "femur:2" in finding.what) == ("missing_object", True)


def test_object_that_no_row_names_is_found_when_the_grace_time_is_over(whole: Context) -> None:
    whole.store.put(b"left behind", "reports")
    whole.store.put_named(b"still to be ingested", "incoming/femur/march.zip")
    assert codes(whole) == []
    late = Context(whole.registry, whole.store, whole.settings, lambda: datetime.now(UTC) + timedelta(hours=25))
    (finding,) = verify(late, DAY)[0]
    assert (finding.code, "reports/" in finding.what) == ("orphan", True)


def test_row_that_is_not_the_signed_one_is_found(whole: Context) -> None:
    with whole.registry.writing() as session:
        session.execute(text("drop trigger model_version_refuses_update"))
        session.execute(update(ModelVersion).where(ModelVersion.version == 1).values(family="tuned"))
    assert codes(whole) == ["bad_signature"]


def test_champion_that_the_log_does_not_say_is_found(whole: Context) -> None:
    with whole.registry.writing() as session:
        other = session.scalars(select(ModelVersion.id).where(ModelVersion.version == 2)).one()
        session.execute(update(Champion).values(model_version_id=other))
    (finding,) = verify(whole, DAY)[0]
    assert (finding.code, "femur:2, which the log does not say" in finding.what) == ("bad_champion", True)
