"""Ports of the embedded stack: chosen free once, then remembered."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from pydantic import BaseModel

from femur_tasks.errors import FemurError
from femur_tasks.stack.files import read_model, write_private

GRPC_OFFSET = 10_000  # SeaweedFS opens this much above each of its ports as well
# With the offset still below 32768, where Linux begins to hand out ports to outgoing connections; and no candidate is
# another one's port above the offset.
_CANDIDATES = range(10_240, 10_240 + GRPC_OFFSET)


class StorePorts(BaseModel):
    """SeaweedFS' five services; clients use `s3` alone."""

    s3: int
    filer: int
    master: int
    volume: int
    admin: int

    def opened(self) -> list[int]:
        """Every port that the store listens on."""
        named: list[int] = list(self.model_dump().values())
        return named + [port + GRPC_OFFSET for port in named]


class Ports(BaseModel):
    store: StorePorts
    airflow: int


def is_free(port: int) -> bool:
    """Whether nothing listens there; connections that wait out their time do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    # not by the generator that trainings seed: two processes would try the same ports in the same order
    for port in random.SystemRandom().sample(_CANDIDATES, k=1_000):
        if is_free(port) and is_free(port + GRPC_OFFSET):
            found.append(port)
        if len(found) == count:
            return found
    raise FemurError(
        f"Expected {count} free ports between {_CANDIDATES.start} and {_CANDIDATES.stop}. Received: {len(found)}.",
        "Stop something that listens on this machine.",
    )


def remember_ports(home: Path, running: set[str]) -> tuple[Ports, bool]:
    """The remembered ports, anew where a part is down and somebody else listens on its ports.

    Args:
        running: names of the parts that are up: their ports are taken by themselves.

    Returns:
        The ports, and whether an earlier choice was changed.
    """
    path = home / "ports.json"
    known = read_model(path, Ports)
    store = known.store if known else None
    airflow = known.airflow if known else None
    if store is None or ("store" not in running and not all(map(is_free, store.opened()))):
        store = StorePorts(**dict(zip(StorePorts.model_fields, _free_ports(5), strict=True)))
    if airflow is None or ("api-server" not in running and not is_free(airflow)):
        airflow = next(port for port in _free_ports(6) if port not in store.opened())
    ports = Ports(store=store, airflow=airflow)
    if ports != known:
        write_private(path, ports.model_dump_json(indent=2))
    return ports, known is not None and ports != known


def known_ports(home: Path) -> Ports | None:
    """The remembered ports, None before the first `up`."""
    return read_model(home / "ports.json", Ports)
