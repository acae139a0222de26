"""Sixteen promoters at once, again and again: one wins a round, the log is one line, and no reader sees none or two."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from sqlalchemy import select, text

from femur_tasks.errors import StaleChampion
from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import promote, rollback
from femur_tasks.registry.tables import Champion, ModelVersion, Promotion
from tests import registry_rows as rows

PROMOTERS, ROUNDS, READS_S = 16, 200, 500


class Reader(threading.Thread):
    """Asks for the champion so many times a second, and keeps every answer that is not exactly one."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(daemon=True)
        self._registry = registry
        self._ended = threading.Event()
        self.reads = 0
        self.wrong: list[tuple[int, int]] = []

    def run(self) -> None:
        due = time.monotonic()
        statement = text(
            "select (select count(*) from champion where model = 'femur'), "
            "(select count(*) from champion_history where model = 'femur' and until is null)"
        )
        while not self._ended.is_set():
            with self._registry.reading() as session:
                answer = tuple(session.execute(statement).one())
            self.reads += 1
            if answer != (1, 1):
                self.wrong.append(answer)
            due = max(due + 1 / READS_S, time.monotonic() - 1)
            self._ended.wait(max(0.0, due - time.monotonic()))

    def stop(self) -> None:
        self._ended.set()
        self.join()


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

    reader = Reader(registry)
    reader.start()
    began = time.monotonic()
    with ThreadPoolExecutor(PROMOTERS) as pool:
        for _ in range(ROUNDS):
            outcomes = Counter(pool.map(try_to_promote, judged(registry)))
            assert outcomes == {"won": 1, "stale": PROMOTERS - 1}
            if drawn.random() < 0.1:
                with registry.writing() as session:
                    rollback(session, "femur", None, "cli:ben", "worse", rows.NOON)
    took_s = time.monotonic() - began
    reader.stop()
    assert reader.wrong == []
    assert reader.reads > 50 * took_s / 10, "the reader starved"
    with registry.reading() as session:
        moves = session.scalars(select(Promotion).order_by(Promotion.id)).all()
        assert session.get_one(Champion, "femur").model_version_id == moves[-1].to_id
    assert moves[0].from_id is None
    assert all(later.from_id == earlier.to_id for earlier, later in pairwise(moves))
    assert sum(move.kind == "promote" for move in moves) == ROUNDS + 1
