"""The embedded stack with its real parts; Airflow's are tried by the end-to-end tests."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

from femur_tasks.errors import FemurError, Unreachable
from femur_tasks.settings import Settings
from femur_tasks.stack import control, leftovers, supervision
from femur_tasks.stack.control import PartStatus, down, status, up
from femur_tasks.stack.ports import Ports, known_ports, remember_ports
from femur_tasks.steps import notify
from femur_tasks.steps.context import open_context
from femur_tasks.storage import open_store
from tests.conftest import settings_of
from tests.receivers import Webhook, webhook
from tests.safety import listened, open_to_others, secrets_in_logs


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Settings]:
    """Settings of a home whose stack the test may maltreat; nothing runs at first."""
    home = tmp_path / "home"
    try:
        yield settings_of(home)
    finally:
        down(settings_of(home))


def part(settings: Settings, name: str = "store") -> PartStatus:
    return next(found for found in status(settings) if found.name == name)


@retry(retry=retry_if_result(lambda found: not found), stop=stop_after_delay(20), wait=wait_fixed(0.2))
def wait_for_other_store(settings: Settings, pid: int) -> bool:
    now = part(settings)
    return bool(now.healthy and now.pid != pid)


def pid_of(settings: Settings) -> int:
    pid = part(settings).pid
    assert pid is not None
    return pid


@contextmanager
def bystander(home: Path, **marks: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sleeps, in a process group of its own as Airflow's tasks are."""
    command, env = (
        [sys.executable, "-c", "import time; time.sleep(100)"],
        os.environ | {"FEMUR_HOME": str(home)} | marks,
    )
    process = subprocess.Popen(command, env=env, start_new_session=True)  # noqa: S603
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_ports_that_somebody_takes_before_the_store_does_are_given_up(
    own: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[Ports] = []

    def choose_and_lose_the_first(home: Path, running: set[str]) -> tuple[Ports, bool]:
        found = remember_ports(home, running)
        chosen.append(found[0])
        if len(chosen) == 1:
            thief.bind(("127.0.0.1", found[0].store.filer))
            thief.listen()
        return found

    monkeypatch.setattr(control, "remember_ports", choose_and_lose_the_first)
    with socket.socket() as thief:
        up(own, only={"store"}, wait_s=60)
    assert part(own).healthy
    assert known_ports(own.home) == chosen[1]
    assert chosen[1].store != chosen[0].store


def test_part_that_does_not_start_says_why(own: Settings) -> None:
    (own.home / "store").mkdir(parents=True)
    (own.home / "store" / "filerldb2").write_text("no folder, as SeaweedFS wants it")

    @retry(retry=retry_if_result(lambda said: "filerldb2" not in said), stop=stop_after_delay(60))
    def refusal() -> str:
        with pytest.raises(FemurError, match=r"store \((starting|backoff)\)") as refused:
            up(own, only={"store"}, wait_s=3)  # a busy machine may not have come to the fault by then
        return str(refused.value)

    assert re.search(r"store said last: '.*filerldb2", refusal())


def test_object_put_is_read_back(store_settings: Settings) -> None:
    store = open_store(store_settings)
    assert store.get(store.put(b"femur", "raw")) == b"femur"


@pytest.mark.parametrize(
    "wrong",
    [
        {"s3_secret_key": SecretStr("guessed")},
        {"s3_access_key": "nobody"},
        {"s3_access_key": "", "s3_secret_key": SecretStr("")},
    ],
    ids=["secret", "user", "anonymous"],
)
def test_wrong_credentials_are_refused(store_settings: Settings, wrong: dict[str, object]) -> None:
    with pytest.raises((Unreachable, ValueError)):
        open_store(store_settings.model_copy(update=wrong)).put(b"x", "raw")


def test_store_listens_on_loopback_and_its_own_ports_alone(store_settings: Settings) -> None:
    assert set(leftovers.find(store_settings.home)) == {"supervisord", "store"}
    ports = known_ports(store_settings.home)
    assert ports is not None
    listening = listened(process for group in leftovers.find(store_settings.home).values() for process in group)
    assert listening == {("127.0.0.1", port) for port in ports.store.opened()}


def test_no_file_is_open_to_others(store_settings: Settings) -> None:
    assert open_to_others(store_settings.home) == []
    assert stat.S_IMODE((store_settings.home / "stack.env").stat().st_mode) == 0o600


def test_credentials_are_in_no_log(store_settings: Settings) -> None:
    assert secrets_in_logs(store_settings.home) == []


def test_second_up_changes_nothing(store_settings: Settings) -> None:
    before, said = pid_of(store_settings), list[str]()
    up(store_settings, only={"store"}, on_progress=said.append)
    assert (pid_of(store_settings), said[-1]) == (before, "everything runs and is healthy")


def test_parts_that_were_not_asked_for_stay_down(store_settings: Settings) -> None:
    assert [(found.name, found.state) for found in status(store_settings) if found.healthy is None] == [
        ("api-server", "stopped"),
        ("scheduler", "stopped"),
        ("dag-processor", "stopped"),
        ("triggerer", "stopped"),
    ]


def test_killed_store_comes_back_with_what_it_acknowledged(own: Settings) -> None:
    up(own, only={"store"})
    own = settings_of(own.home)
    key, pid = open_store(own).put(b"kept", "raw"), pid_of(own)
    os.kill(pid, signal.SIGKILL)
    wait_for_other_store(own, pid)
    assert open_store(own).get(key) == b"kept"


def test_up_ends_what_a_killed_supervisord_left_and_nothing_else(own: Settings) -> None:
    up(own, only={"store"})
    before = pid_of(own)
    with bystander(own.home, FEMUR_PART="scheduler") as task, bystander(own.home) as foreign:
        os.kill(leftovers.find(own.home)["supervisord"][0].pid, signal.SIGKILL)
        time.sleep(0.2)
        assert part(own, "scheduler").state == "orphaned"
        # the store may be dead by now: its next log line meets a pipe that nobody reads
        assert part(own).state in {"orphaned", "stopped"}
        said: list[str] = []
        up(own, only={"store"}, on_progress=said.append)
        assert said[0].startswith("ended ")
        assert [process.pid for process in leftovers.find(own.home)["store"]] == [pid_of(own)]
        assert pid_of(own) != before
        assert task.wait(5) == -signal.SIGTERM
        assert foreign.poll() is None


def test_replacement_ends_the_children_of_the_killed_part(own: Settings) -> None:
    up(own, only={"store"})
    pid = pid_of(own)
    with bystander(own.home, FEMUR_PART="store") as child, bystander(own.home, FEMUR_PART="scheduler") as other:
        os.kill(pid, signal.SIGKILL)
        wait_for_other_store(own, pid)
        assert child.wait(5) == -signal.SIGTERM
        assert other.poll() is None


def test_down_leaves_no_process_and_no_socket(own: Settings) -> None:
    up(own, only={"store"})
    ports = known_ports(own.home)
    assert ports is not None
    down(own)
    assert leftovers.find(own.home) == {}
    assert list(own.home.glob("*.sock")) == []
    assert [path for port in ports.store.opened() for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock")] == []  # noqa: S108
    assert {found.state for found in status(own)} == {"stopped"}
    down(own)


def test_sigterm_to_supervisord_stops_everything(own: Settings) -> None:
    up(own, only={"store"})
    with bystander(own.home, FEMUR_PART="scheduler") as task:
        os.kill(leftovers.find(own.home)["supervisord"][0].pid, signal.SIGTERM)
        assert task.wait(40) == -signal.SIGTERM


def test_taken_port_is_chosen_anew_and_objects_survive_the_move(own: Settings) -> None:
    up(own, only={"store"})
    first = settings_of(own.home)
    key = open_store(first).put(b"moved", "raw")
    down(own)
    with socket.create_server(("127.0.0.1", int(first.s3_endpoint.split(":")[1]))):
        up(own, only={"store"})
        second = settings_of(own.home)
        assert second.s3_endpoint != first.s3_endpoint
        assert open_store(second).get(key) == b"moved"


def test_home_with_a_long_and_odd_path_works(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "100% of a home" / ("x" * 100))
    try:
        assert up(settings, only={"store"})[0].healthy
        short = Path((settings.home / "socket.dir").read_text())
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
    finally:
        down(settings)
    assert not short.exists()


def test_down_refuses_to_end_its_own_caller(own: Settings) -> None:
    up(own, only={"store"})
    code = (
        "from pathlib import Path\nfrom femur_tasks.settings import Settings\n"
        f"from femur_tasks.stack.control import down\ndown(Settings(home=Path({str(own.home)!r})))"
    )
    env = os.environ | {"FEMUR_HOME": str(own.home), "FEMUR_PART": "scheduler"}
    asked = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)  # noqa: S603
    assert "Received: a call from scheduler" in asked.stderr
    assert part(own).healthy


def test_unknown_part_is_refused(own: Settings) -> None:
    with pytest.raises(FemurError, match="Received: webserver"):
        up(own, only={"webserver"})


def test_status_of_a_home_that_never_ran_makes_nothing(own: Settings) -> None:
    assert {(found.state, found.pid) for found in status(own)} == {("stopped", None)}
    assert supervision.connect(own.home) is None
    assert not own.home.exists()


def pointed_at(settings: Settings, hook: Webhook) -> Settings:
    return settings.model_copy(update={"notify_urls": SecretStr(hook.url)})


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    """Where the stack's alarm, a process of its own, sends its messages."""
    with webhook() as found:
        monkeypatch.setenv("FEMUR_NOTIFY_URLS", found.url)
        yield found


@retry(retry=retry_if_result(lambda told: not told), stop=stop_after_delay(200), wait=wait_fixed(0.2))
def wait_for_message(hook: Webhook, title: str) -> bool:
    return title in hook.titles


@retry(retry=retry_if_result(lambda found: not found), stop=stop_after_delay(30), wait=wait_fixed(0.1))
def wait_for_state(settings: Settings, name: str, state: str) -> bool:
    return part(settings, name).state == state


def test_people_are_told_of_a_part_that_was_killed_and_of_one_that_never_starts(own: Settings, hook: Webhook) -> None:
    """Neither scheduler nor Airflow's database is there: the alarm needs none of them."""
    up(pointed_at(own, hook), only={"store"})
    wait_for_state(own, "store", "running")
    assert not [*Path(tempfile.gettempdir()).glob("alarm-stdout*")], "all that a stack writes lies in its home"
    os.kill(pid_of(own), signal.SIGKILL)
    wait_for_message(hook, "store ended, and is started again")
    spec = own.home / "parts" / "scheduler.json"
    spec.write_text(json.dumps({**json.loads(spec.read_text()), "argv": ["/bin/false"]}))
    supervisor = supervision.connect(own.home)
    assert supervisor is not None
    supervisor.start("scheduler")
    wait_for_message(hook, "scheduler is down: it ended at every start")
    assert part(own, "scheduler").state == "fatal"
    down(own)
    assert sorted(hook.titles) == ["scheduler is down: it ended at every start", "store ended, and is started again"]
    assert leftovers.find(own.home) == {}


def test_stack_that_tells_nobody_has_no_alarm(store_settings: Settings) -> None:
    assert "eventlistener" not in (store_settings.home / "supervisord.conf").read_text()


def test_morning_look_finds_a_part_that_was_given_up_and_a_supervisor_that_is_dead(own: Settings) -> None:
    with webhook() as hook:
        up(own, only={"store"})
        spec = own.home / "parts" / "triggerer.json"
        spec.write_text(json.dumps({**json.loads(spec.read_text()), "argv": ["/bin/false"]}))
        supervisor = supervision.connect(own.home)
        assert supervisor is not None
        supervisor.start("triggerer")
        wait_for_state(own, "triggerer", "backoff")
        context = open_context(pointed_at(settings_of(own.home), hook))
        notify.watch(context)
        assert hook.titles == ["triggerer does not work (backoff)"]
        notify.watch(context)
        assert len(hook.titles) == 1
        os.kill(leftovers.find(own.home)["supervisord"][0].pid, signal.SIGKILL)
        time.sleep(0.2)
        notify.watch(context)
        assert hook.titles[1:] == ["The stack's supervisor is dead"]
        down(own)
        notify.watch(context)
        assert len(hook.titles) == 2, "a stack that is down on purpose is no news"
