"""Steps in processes of their own: their answers, their errors, and that none outlives whoever waits for it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from femur_tasks.errors import Hopeless
from femur_tasks.processes import Crashed, apart
from femur_tasks.settings import CHECKOUT

PRELOAD = ("json",)


def double(number: int) -> tuple[int, int, int]:
    return 2 * number, os.getpid(), os.getppid()


def refuse(what: str) -> None:
    raise Hopeless(what, "Give up.")


def end(how: int) -> None:
    if how > 0:
        os.kill(os.getpid(), how)
    os._exit(-how)


def told_and_asleep(file: str) -> None:
    part = Path(file).with_suffix(".part")
    part.write_text(str(os.getpid()))
    part.rename(file)
    time.sleep(600)


def loaded(*names: str) -> list[str]:
    return [name for name in names if sys.modules.get(name)]


def asleep_apart(file: str) -> None:
    apart(PRELOAD, told_and_asleep, file)


def test_answer_comes_from_another_process_each_time() -> None:
    (first, first_pid, server), (second, second_pid, same) = (apart(PRELOAD, double, 21) for _ in range(2))
    assert first == second == 42
    assert len({os.getpid(), first_pid, second_pid, server}) == 4, "forked by the server, which has loaded it all"
    assert same == server


def test_error_arrives_as_it_was_raised() -> None:
    with pytest.raises(Hopeless, match="no femur") as caught:
        apart(PRELOAD, refuse, "no femur")
    assert (caught.value.what, caught.value.todo) == ("no femur", "Give up.")


@pytest.mark.parametrize(
    ("how", "said"), [pytest.param(signal.SIGKILL, "SIGKILL", id="killed"), pytest.param(-7, "exit code 7", id="left")]
)
def test_process_that_ends_without_an_answer_has_crashed(how: int, said: str) -> None:
    with pytest.raises(Crashed, match=said):
        apart(PRELOAD, end, how)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_process_ends_with_whoever_waits_for_it(how: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "pid"
    temporary = Path(tempfile.mkdtemp(prefix="t"))  # short: a socket's path has a limit
    code = (
        "import signal, sys; from tests.unit.test_processes import asleep_apart;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a background shell has it ignored
        "asleep_apart(sys.argv[1])"
    )
    command, env = [sys.executable, "-c", code, str(file)], {**os.environ, "TMPDIR": str(temporary)}
    waits = subprocess.Popen(command, cwd=CHECKOUT, env=env, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        until = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < until
            assert waits.poll() is None
            time.sleep(0.05)
        child = psutil.Process(int(file.read_text()))
        assert list(temporary.glob("pymp-*")), "the fork server's socket lies there"
        waits.send_signal(how)
        waits.wait(20)
        child.wait(20)
        until = time.monotonic() + 20
        while list(temporary.glob("pymp-*")):
            assert time.monotonic() < until, "the fork server's folder is left behind"
            time.sleep(0.05)
    finally:
        waits.kill()
        shutil.rmtree(temporary, ignore_errors=True)


def test_server_ends_without_taking_apart_what_it_has_loaded(tmp_path: Path) -> None:
    (tmp_path / "heavy.py").write_text("""
class Heavy:
    def __del__(self):
        print("taken apart", flush=True)
heavy = Heavy()
""")
    script = "import os, heavy; from femur_tasks.processes import apart; apart(['heavy'], os.getpid); os._exit(0)"
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, env=env, capture_output=True, check=True)  # noqa: S603
    assert done.stdout == b""


def test_what_trains_loads_nothing_that_only_drawing_and_converting_need() -> None:
    script = """
from femur_tasks.processes import apart
from femur_tasks.steps.context import _TRAINS
from tests.unit.test_processes import loaded
print(*apart(_TRAINS, loaded, "tensorflow", "keras_tuner", "matplotlib.pyplot", "jax"))
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, check=True, text=True)  # noqa: S603
    assert done.stdout.split() == ["tensorflow", "keras_tuner"]


def test_children_that_are_still_starting_when_the_work_is_done_end_in_silence() -> None:
    script = """
import os
from pebble import ProcessPool
from femur_tasks.processes import children, main_left_out
for _ in range(30):
    with main_left_out(), ProcessPool(8, context=children(["femur_tasks.errors"])) as pool:
        pool.schedule(os.getpid).result()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, check=True)  # noqa: S603
    assert done.stderr == b""
