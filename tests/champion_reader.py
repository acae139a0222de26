"""Asks who is champion 500 times a second until its input closes: `python -m tests.champion_reader DATABASE_URL`.

It prints, as JSON, how often it asked, in how many seconds, and every answer that was not exactly one champion.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from sqlalchemy import text

from femur_tasks.registry.database import Registry

READS_S = 500
STATEMENT = text(
    "select (select count(*) from champion where model = 'femur'), "
    "(select count(*) from champion_history where model = 'femur' and until is null)"
)


def main(url: str) -> None:
    closed = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), closed.set()), daemon=True).start()
    engine, reads, wrong = Registry(url).engine, 0, list[tuple[int, ...]]()
    with engine.connect() as connection:
        began = due = time.monotonic()
        while not closed.is_set():
            answer = tuple(connection.execute(STATEMENT).one())
            connection.rollback()  # the next one sees what was committed meanwhile
            reads += 1
            if answer != (1, 1):
                wrong.append(answer)
            due = max(due + 1 / READS_S, time.monotonic() - 1)
            closed.wait(max(0.0, due - time.monotonic()))
    sys.stdout.write(json.dumps({"reads": reads, "seconds": time.monotonic() - began, "wrong": wrong}))


if __name__ == "__main__":
    main(sys.argv[1])
