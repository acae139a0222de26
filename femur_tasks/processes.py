"""Work in processes of its own: one fork server that has loaded what is heavy, and children that cost milliseconds."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from multiprocessing.process import AuthenticationString  # type: ignore[attr-defined]
from multiprocessing.synchronize import RLock
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

from femur_tasks.errors import FemurError
from femur_tasks.logs import Lines, ids

P = ParamSpec("P")
R = TypeVar("R")


class Crashed(FemurError):
    """The process ended without an answer: killed, out of memory, or by a fault in native code."""


class _Children(ForkServerContext):
    """Keeps its locks: pebble drops a pool's before it ends those children that are about to look for them."""

    def __init__(self) -> None:
        super().__init__()
        self._locks: list[RLock] = []

    def RLock(self) -> RLock:  # noqa: N802 - as the context names it
        self._locks.append(super().RLock())
        return self._locks[-1]


def children(preload: Sequence[str]) -> ForkServerContext:
    """What starts children.

    Args:
        preload: modules that the fork server loads once for all children; the first caller's count.
    """
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    # a task runner's process counts as a daemon, which may have no children; these end with this process
    config["daemon"] = False
    # Celery puts billiard's process in the place of this one, with a key of a kind that no child is handed
    config["authkey"] = AuthenticationString(config["authkey"])
    context = _Children()
    context.set_forkserver_preload(["femur_tasks.fork_server", *preload])
    return context


@contextmanager
def main_left_out() -> Iterator[None]:
    """A child loads the main program again: seconds under Airflow, and these need none of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def apart(preload: Sequence[str], function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The function's answer from a process of its own, which ends with it, and at the latest with this one.

    Whatever native libraries keep of a call, they keep no longer than that.

    Raises:
        Crashed: the process ended without an answer.
        Exception: what the function raised.
    """
    from pebble import ProcessExpired, ProcessPool

    with main_left_out():
        pool = ProcessPool(1, context=children(preload), initializer=_bind_to_parent, initargs=[_log_level(), ids()])
        future = pool.schedule(function, args=list(args), kwargs=kwargs)
    try:
        return future.result()
    except ProcessExpired as err:
        code = err.exitcode or 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "SIGKILL is mostly the system's, out of memory: give fewer workers, a smaller batch or more memory."
        raise Crashed(f"Expected an answer from process {err.pid}. Received: {how}.", hint) from err
    finally:
        pool.stop()  # type: ignore[no-untyped-call]
        pool.join()


def _log_level() -> int:
    return logging.getLogger().getEffectiveLevel()


def _bind_to_parent(log_level: int, lines_carry: dict[str, Any]) -> None:
    from structlog.contextvars import bind_contextvars

    logging.basicConfig(level=log_level, handlers=[Lines()])
    bind_contextvars(**lines_carry)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever waits, who then ends this process
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
