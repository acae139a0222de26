"""Health of the parts, asked of the parts themselves."""

from __future__ import annotations

from datetime import datetime
from math import inf

import httpx

from femur_tasks.stack.parts import STORE
from femur_tasks.stack.ports import Ports

_TIMEOUT_S = 5


def _ask(port: int, path: str) -> httpx.Response | None:
    """The answer of a part on this machine, None where it gives none or refuses; proxies are passed by."""
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return None
    return answer if answer.is_success else None


def last_signs(ports: Ports, running: set[str]) -> dict[str, float]:
    """When each part was last known to work, in seconds since 1970: infinity for one that answers now.

    A part that is missing gives no sign. The scheduler, the triggerer and the DAG processor are known by the
    heartbeats that the api-server reports, which may stem from a part's earlier life: compare with its start.
    """
    signs: dict[str, float] = {}
    if STORE in running and _ask(ports.store.s3, "/status"):
        signs[STORE] = inf
    answer = _ask(ports.airflow, "/api/v2/monitor/health") if "api-server" in running else None
    if answer is not None:
        signs["api-server"] = inf
        for name in ("scheduler", "dag_processor", "triggerer"):
            report = answer.json().get(name) or {}
            if report.get("status") == "healthy":
                heartbeat = datetime.fromisoformat(report[f"latest_{name}_heartbeat"])
                signs[name.replace("_", "-")] = heartbeat.timestamp()
    return signs
