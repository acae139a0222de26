"""Sixteen promoters at once, again and again: one wins a round, the log is one line, and no reader sees none or two."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import pytest
from sqlalchemy import select

from femur_tasks.dataset.manifest import Manifest
from femur_tasks.errors import FemurError, StaleChampion
from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import promote, rollback
from femur_tasks.registry.tables import Champion, CollectedVersion, DatasetVersion, ModelVersion, Promotion, Run
from femur_tasks.settings import CHECKOUT
from femur_tasks.steps.champion import promote_by_hand
from femur_tasks.steps.collect import collect
from femur_tasks.steps.context import Context, utc_now
from femur_tasks.storage import digest_in
from tests import registry_rows as rows

PROMOTERS, ROUNDS, COLLECTIONS = 16, 200, 60


def judged(registry: Registry) -> list[int]:
    """A verdict for each challenger against the champion of now."""
    with registry.writing() as session:
        champion = session.get_one(ModelVersion, session.get_one(Champion, "femur").model_version_id)
        others = session.scalars(select(ModelVersion).where(ModelVersion.id != champion.id)).all()
        return [rows.verdict(session, other, champion).id for other in others[:PROMOTERS]]


@pytest.mark.timeout(600)
def test_collection_and_promotion_at_once_never_leave_a_champion_without_its_files(
    registry: Registry, context: Context
) -> None:
    now = utc_now() + timedelta(days=9)
    place = replace(context, registry=registry, now=lambda: now)
    manifest = place.store.put(Manifest("femur", 32, (), (), {}).to_json(), "manifests")
    with registry.writing() as session:
        digest = rows.dataset_version(session).digest
        session.get_one(DatasetVersion, digest).manifest_key = manifest
    promoted = 0
    with ThreadPoolExecutor(2) as pool:
        for version in range(1, 2 * COLLECTIONS, 2):
            for number in (version, version + 1):
                key = place.store.put(b"weights %d" % number, "artefacts")
                with registry.writing() as session:
                    values = {"artefact_key": key, "artefact_sha256": digest_in(key)}
                    row = rows.model_version(session, number, digest, **values)
                    run = session.get_one(Run, row.run_id)
                    run.state, run.finished_at = "refused", rows.NOON
            start = threading.Barrier(2)

            def promoting(version: int = version, start: threading.Barrier = start) -> bool:
                start.wait()
                time.sleep(random.random() / 20)
                try:
                    promote_by_hand(place, "femur", version, "cli:ann", "a try", is_override=True)
                except FemurError:  # collected first
                    return False
                return True

            def collecting(start: threading.Barrier = start) -> None:
                start.wait()
                time.sleep(random.random() / 20)
                collect(place, 1, timedelta(days=1), is_forced=True)

            done, _ = pool.submit(promoting), pool.submit(collecting).result()
            promoted += done.result()
            with registry.reading() as session:
                champion = session.get(Champion, "femur")
                if champion is not None:
                    assert session.get(CollectedVersion, champion.model_version_id) is None
                    place.store.get(session.get_one(ModelVersion, champion.model_version_id).artefact_key)
                gone = {*session.scalars(select(CollectedVersion.model_version_id))}
                assert gone.isdisjoint(session.scalars(select(Promotion.to_id)))
    assert 0 < promoted < COLLECTIONS, "each was first at times"


@pytest.mark.timeout(600)
def test_one_of_sixteen_promoters_wins_and_the_log_is_one_line(registry: Registry) -> None:
    drawn = random.Random(3)
    with registry.writing() as session:
        digest = rows.dataset_version(session).digest
        models = [rows.model_version(session, version, digest) for version in range(1, PROMOTERS + 2)]
        first = rows.verdict(session, models[0], None).id
        promote(session, first, "cli:ann", rows.NOON)
    start = threading.Barrier(PROMOTERS)

    def try_to_promote(verdict: int) -> str:
        start.wait()
        try:
            with registry.writing() as session:
                promote(session, verdict, f"promoter:{verdict}", rows.NOON)
        except StaleChampion:
            return "stale"
        return "won"

    url = registry.engine.url.render_as_string(hide_password=False)
    reader = subprocess.Popen(  # noqa: S603 - in a process of its own, which the promoters' threads don't hold up
        [sys.executable, "-m", "tests.champion_reader", url],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with ThreadPoolExecutor(PROMOTERS) as pool:
        for _ in range(ROUNDS):
            outcomes = Counter(pool.map(try_to_promote, judged(registry)))
            assert outcomes == {"won": 1, "stale": PROMOTERS - 1}
            if drawn.random() < 0.1:
                with registry.writing() as session:
                    rollback(session, "femur", None, "cli:ben", "worse", rows.NOON)
    told, _ = reader.communicate(timeout=60)
    found = json.loads(told)
    print(f"{found['reads'] / found['seconds']:.0f} reads a second")  # noqa: T201 - for whoever runs it with -s
    assert found["wrong"] == []
    assert found["reads"] > 5 * found["seconds"], "the reader starved"
    with registry.reading() as session:
        moves = session.scalars(select(Promotion).order_by(Promotion.id)).all()
        assert session.get_one(Champion, "femur").model_version_id == moves[-1].to_id
    assert moves[0].from_id is None
    assert all(later.from_id == earlier.to_id for earlier, later in pairwise(moves))
    assert sum(move.kind == "promote" for move in moves) == ROUNDS + 1
