"""Airflow's REST API, as any script outside Airflow uses it: log in, trigger a DAG, follow a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from femur_tasks.errors import FemurError, Unreachable
from femur_tasks.settings import Settings
from femur_tasks.stack.secrets import ADMIN, airflow_password

ENDED = ("success", "failed")
_NAMING = ("timestamp", "ts", "event", "level", "logger", "filename", "lineno", "ti_id", "dag_id", "task_id", "run_id",
           "try_number", "map_index")  # fmt: skip


class AirflowClient:
    """A logged-in session.

    Args:
        url: where Airflow's UI and API answer.
        user, password: of an Airflow user who may trigger DAGs.

    Raises:
        Unreachable: nothing answers there.
        FemurError: it refuses the log-in.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self._credentials = {"username": user, "password": password}
        self._log_in()

    def _log_in(self) -> None:
        with _translated():
            answer = self._http.post("/auth/token", json=self._credentials)
            answer.raise_for_status()
            self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        """Any call below `/api/v2`; raises `FemurError` with Airflow's words where it refuses."""
        with _translated():
            answer = self._http.request(method, f"/api/v2{path}", **arguments)
            # Airflow calls a token that has aged unauthorised, and one of before a change of its key forbidden
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                self._log_in()
                answer = self._http.request(method, f"/api/v2{path}", **arguments)
            answer.raise_for_status()
            found: dict[str, Any] = answer.json()
            return found

    def has_dag(self, dag_id: str) -> bool:
        """Whether Airflow has parsed this DAG yet."""
        return any(dag["dag_id"] == dag_id for dag in self.ask("GET", "/dags", params={"limit": 100})["dags"])

    def trigger(self, dag_id: str, conf: dict[str, Any]) -> str:
        """Start a DAG by hand; returns the run id."""
        body = {"logical_date": None, "conf": conf}  # without this key Airflow answers 422
        return str(self.ask("POST", f"/dags/{dag_id}/dagRuns", json=body)["dag_run_id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The DAG's runs, newest first."""
        params = {"order_by": "-run_after", "limit": 50}
        return list(self.ask("GET", f"/dags/{dag_id}/dagRuns", params=params)["dag_runs"])

    def note(self, dag_id: str, run_id: str, text: str) -> None:
        """Write the note that Airflow shows beside a run."""
        self.ask("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", json={"note": text})

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        """One run with its state."""
        return self.ask("GET", f"/dags/{dag_id}/dagRuns/{run_id}")

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The run's task instances in the order in which they started, those that did not start last."""
        path, found = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", list[dict[str, Any]]()
        asked = {"limit": 100, "order_by": "id"}
        while page := self.ask("GET", path, params={**asked, "offset": len(found)})["task_instances"]:
            found += page
        return sorted(found, key=lambda task: (task["start_date"] or "9", task["task_id"]))

    def logs(self, dag_id: str, run_id: str, task_id: str | None = None) -> Iterator[tuple[str, list[str]]]:
        """What the tasks of a run logged: name and lines of the last attempt of each that started.

        Raises:
            FemurError: Airflow knows no such run, or no such task of it.
        """
        started = [task for task in self.tasks(dag_id, run_id) if task["try_number"] and task["start_date"]]
        for task in started:
            if task_id not in (None, task["task_id"]):
                continue
            path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task['task_id']}/logs/{task['try_number']}"
            found = self.ask("GET", path, params={"map_index": task["map_index"], "full_content": True})
            place = "" if task["map_index"] < 0 else f"[{task['map_index']}]"
            yield (
                f"{task['task_id']}{place}: {task['state']}",
                [line for one in found["content"] if "::" not in (line := _line(one))[:20]],
            )


def _line(entry: str | dict[str, Any]) -> str:
    """A log entry as a line: time, event, and what is bound to it beside what names the task."""
    if isinstance(entry, str):
        return entry
    bound = " ".join(f"{name}={value}" for name, value in entry.items() if name not in _NAMING)
    return f"{str(entry.get('timestamp') or '')[11:19]} {entry.get('event', '')} {bound}".strip()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as err:
        raise FemurError(
            f"Expected Airflow to take {err.request.method} {err.request.url.path}. "
            f"Received: {err.response.status_code} {err.response.text[:300]}."
        ) from err
    except httpx.HTTPError as err:
        todo = "Start it: the embedded one with `femur up`."
        raise Unreachable(f"Expected Airflow to answer. Received: {err}.", todo) from err


def connect(settings: Settings) -> AirflowClient:
    """A session with the embedded stack's Airflow as its admin.

    Raises:
        Unreachable: the stack was never started, or does not answer.
        NotFound: Airflow's password is gone.
    """
    if not settings.airflow_url:
        raise Unreachable("Expected a running embedded stack. Received: none.", "Start it with `femur up`.")
    return AirflowClient(settings.airflow_url, ADMIN, airflow_password(settings.home))


def note_writer(settings: Settings) -> AirflowClient:
    """A session for notes beside runs: as whom FEMUR_AIRFLOW_LOGIN_FILE names, else that of `connect`.

    Raises:
        Unreachable, NotFound: as `connect`.
        FemurError: the file holds no address, or Airflow refuses the log-in.
    """
    file = settings.airflow_login_file
    if file is None:
        return connect(settings)
    try:
        url = httpx.URL(file.read_text().strip())
    except (OSError, ValueError, httpx.InvalidURL) as err:  # whose text may hold the password
        raise FemurError(
            f"Expected http://USER:PASSWORD@HOST:PORT in {file}. Received: {type(err).__name__}.",
            "Let `femur cluster secrets` make it anew.",
        ) from None
    return AirflowClient(str(url.copy_with(username=None, password=None)), url.username, url.password)
