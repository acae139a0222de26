"""Processes that kill themselves at a named point: behind what they store or delete, before and behind each commit."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session

from femur_tasks.registry.database import Registry
from femur_tasks.storage import S3Store


class Points:
    """Counts the points that a process comes to, and kills it at one of them; the second time is called `NAME 2`."""

    def __init__(self, fatal: str) -> None:
        self._fatal, self._lock = fatal, threading.Lock()
        self._seen = Counter[str]()
        self.reached: list[str] = []

    def __call__(self, name: str) -> None:
        with self._lock:
            self._seen[name] += 1
            label = name if self._seen[name] == 1 else f"{name} {self._seen[name]}"
            self.reached.append(label)
            if label == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)


class MortalStore(S3Store):
    """A store whose process may die behind a transfer."""

    def __init__(self, store: S3Store, reached: Points) -> None:
        super().__init__(store._client, store._bucket)
        self._reached = reached

    def put(self, data: bytes | Path, kind: str) -> str:
        key = super().put(data, kind)
        self._reached(f"{kind} stored")
        return key

    def download(self, key: str, path: Path) -> None:
        super().download(key, path)
        self._reached("downloaded")

    def delete(self, key: str) -> None:
        super().delete(key)
        self._reached(f"{key.partition('/')[0]} deleted")


class MortalRegistry(Registry):
    """A registry whose process may die before or behind a commit, which is named for the function that writes."""

    def __init__(self, url: str, reached: Points) -> None:
        super().__init__(url)
        self._reached = reached

    @contextmanager
    def writing(self) -> Iterator[Session]:
        writer = sys._getframe(2).f_code.co_name.strip("_")
        with super().writing() as session:
            yield session
            session.flush()
            self._reached(f"{writer}: before the commit")
        self._reached(f"{writer}: behind the commit")
