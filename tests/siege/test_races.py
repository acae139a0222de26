"""Sixteen promoters at once, again and again: one wins a round, the log is one line, and no reader sees none or two."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy import select

from femur_tasks.errors import StaleChampion
from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import promote, rollback
from femur_tasks.registry.tables import Champion, ModelVersion, Promotion
from femur_tasks.settings import CHECKOUT
from tests import registry_rows as rows

PROMOTERS, ROUNDS = 16, 200


def judged(registry: Registry) -> list[int]:
    """A verdict for each challenger against the champion of now."""
    with registry.writing() as session:
        champion = session.get_one(ModelVersion, session.get_one(Champion, "femur").model_version_id)
        others = session.scalars(select(ModelVersion).where(ModelVersion.id != champion.id)).all()
        return [rows.verdict(session, other, champion).id for other in others[:PROMOTERS]]


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
