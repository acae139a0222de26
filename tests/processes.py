"""The CLI as a process of its own, in a home of its own, on a real store."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from femur_tasks.settings import CHECKOUT, Settings

_CACHE = Path(tempfile.gettempdir()) / f"femur-test-bytecode-{os.getuid()}"


def environment(home: Path, store: Settings | None = None, **more: str) -> dict[str, str]:
    """What a process needs to work in `home`: with `store` on that store instead of the home's own.

    Compiled modules are kept wherever Python may not write them: half of a short process would be compiling.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEMUR_")}
    if inherited.pop("PYTHONDONTWRITEBYTECODE", None):
        inherited["PYTHONPYCACHEPREFIX"] = str(_CACHE)
    (home / "tmp").mkdir(parents=True, exist_ok=True, mode=0o700)
    found = {"FEMUR_HOME": str(home), "TMPDIR": str(home / "tmp"), "PYTHONPATH": str(CHECKOUT), "COLUMNS": "300"}
    if store:
        found |= {
            "FEMUR_S3_ENDPOINT": store.s3_endpoint,
            "FEMUR_S3_ACCESS_KEY": store.s3_access_key,
            "FEMUR_S3_SECRET_KEY": store.s3_secret_key.get_secret_value(),
        }
    return {**inherited, **found, **more}


def femur(env: Mapping[str, str], *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[bytes]:
    """Run the CLI in its home."""
    command = [str(Path(sys.executable).with_name("femur")), *arguments]
    return subprocess.run(  # noqa: S603 - no part of the command comes from outside
        command, cwd=env["FEMUR_HOME"], env=env, capture_output=True, timeout=timeout_s, check=False
    )


_MEASURING = """
import ctypes, json, os, resource, subprocess, sys
ctypes.CDLL(None).prctl(36, 1)  # whoever is orphaned below becomes a child of this process, and is counted
code = subprocess.call(sys.argv[2:])
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    json.dump({"code": code, "cpu_s": used.ru_utime + used.ru_stime, "largest_mib": used.ru_maxrss / 1024}, file)
"""


@dataclass(frozen=True)
class Measured:
    """What a process and all that it started took together, until the last of them had ended.

    Attributes:
        largest_mib: resident memory of the largest of the processes at its peak.
    """

    code: int
    cpu_s: float
    largest_mib: float
    stdout: bytes
    stderr: bytes


def measured_femur(env: Mapping[str, str], *arguments: str, timeout_s: float = 60) -> Measured:
    """Run the CLI in its home, and wait for whatever it leaves running."""
    program = str(Path(sys.executable).with_name("femur"))
    with tempfile.NamedTemporaryFile("r") as told:
        process = subprocess.Popen(  # noqa: S603 - no part of the command comes from outside
            [sys.executable, "-S", "-c", _MEASURING, told.name, program, *arguments],
            cwd=env["FEMUR_HOME"],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with all that it started
            out, err = process.communicate()
        measured = json.loads(told.read() or '{"code": -9, "cpu_s": 0, "largest_mib": 0}')
        return Measured(**measured, stdout=out, stderr=err)
