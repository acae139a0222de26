"""What runs, and whether it works."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from femur_tasks.errors import FemurError
from femur_tasks.settings import Settings
from femur_tasks.stack import leftovers, supervision
from femur_tasks.stack.health import last_signs
from femur_tasks.stack.parts import NAMES, STORE
from femur_tasks.stack.ports import is_free, known_ports
from femur_tasks.stack.supervision import Supervised

Progress = Callable[[str], None]


@dataclass(frozen=True)
class PartStatus:
    """One line of `femur status`.

    `state` is supervisord's word, or `orphaned` for a part that lost its supervisord; `healthy` is None for a part
    that does not run; `address` is empty for a part that nobody calls.
    """

    name: str
    state: str
    healthy: bool | None
    pid: int | None
    uptime_s: float | None
    address: str
    log: Path


def status(settings: Settings) -> list[PartStatus]:
    """Every part, in the order in which they start; works when nothing runs, and changes nothing."""
    home = settings.home
    seen, ports = supervision.parts_seen(home), known_ports(home)
    if seen is None:
        orphans = leftovers.find(home, NAMES)
        seen = {
            name: Supervised("orphaned", found[0].pid, min(process.create_time() for process in found))
            if (found := orphans.get(name))
            else Supervised("stopped", None, None)
            for name in NAMES
        }
    running = {name for name, part in seen.items() if part.has_process}
    signs = last_signs(ports, running) if ports else {}
    addresses = (
        {STORE: f"127.0.0.1:{ports.store.s3}", "api-server": f"http://127.0.0.1:{ports.airflow}"} if ports else {}
    )
    return [
        PartStatus(
            name=name,
            state=(part := seen[name]).state,
            healthy=None if part.started_at is None else signs.get(name, 0) >= part.started_at,
            pid=part.pid,
            uptime_s=None if part.started_at is None else time.time() - part.started_at,
            address=addresses.get(name, ""),
            log=home / "logs" / f"{name}.log",
        )
        for name in NAMES
    ]


class PortsLost(FemurError):
    """A part that ends at its start, and one of whose ports somebody else has taken since it was chosen."""


def await_healthy(settings: Settings, wanted: list[str], wait_s: float, say: Progress) -> None:
    """Wait until these parts are healthy.

    Raises:
        PortsLost: a part can't have its ports, so that waiting on is in vain.
        FemurError: a part is not healthy after `wait_s`, or supervisord has given it up.
    """
    told: set[str] = set()

    def pending() -> list[PartStatus]:
        parts = [part for part in status(settings) if part.name in wanted]
        for part in parts:
            if part.healthy and part.name not in told:
                told.add(part.name)
                say(f"{part.name} is healthy")
        waiting = [part for part in parts if not part.healthy]
        if lost := [part for part in waiting if part.state in ("backoff", "fatal") and _has_lost(part, settings.home)]:
            raise _unhealthy(lost, settings.home, PortsLost)
        if failed := [part for part in waiting if part.state == "fatal"]:
            raise _unhealthy(failed, settings.home)
        return waiting

    try:
        Retrying(retry=retry_if_result(bool), stop=stop_after_delay(wait_s), wait=wait_fixed(0.3))(pending)
    except RetryError as err:
        raise _unhealthy(err.last_attempt.result(), settings.home) from err


def _has_lost(part: PartStatus, home: Path) -> bool:
    ports = known_ports(home)
    opened = {STORE: ports.store.opened(), "api-server": [ports.airflow]} if ports else {}
    return not all(map(is_free, opened.get(part.name, [])))


def _unhealthy(parts: list[PartStatus], home: Path, kind: type[FemurError] = FemurError) -> FemurError:
    names = ", ".join(f"{part.name} ({part.state})" for part in parts)
    supervisor = supervision.connect(home)
    lines = {part.name: supervisor.last_line(part.name) for part in parts} if supervisor else {}
    last = [f"{name} said last: '{line}'." for name, line in lines.items() if line]
    return kind(
        " ".join([f"Expected healthy parts. Received: {names}.", *last]),
        f"Read {', '.join(str(part.log) for part in parts)}.",
    )
