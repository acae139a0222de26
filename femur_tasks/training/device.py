"""Which GPU a process trains on: one of its own, locked until the process ends."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from pathlib import Path

log = logging.getLogger(__name__)
_held: list[int] = []
_WAIT_S = 1.0


def claim(devices: Path = Path("/dev")) -> str | None:
    """Make one NVIDIA card the only one that this process sees, waiting until one is free.

    To be called before a backend looks for cards. The lock lies on the card's device file, so that it counts for
    everyone on this machine, and ends with the process however that ends. Memory is taken as it is needed.

    Args:
        devices: where the device files are.

    Returns:
        The card's number; None where there is no card, or where CUDA_VISIBLE_DEVICES names none by its number.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    numbers = _numbers(devices)
    is_told = False
    while numbers:
        for number in numbers:
            if _locked(devices / f"nvidia{number}"):
                os.environ["CUDA_VISIBLE_DEVICES"] = number
                return number
        if not is_told:
            log.warning("waiting for one of %d cards: each trains for another process", len(numbers))
            is_told = True
        time.sleep(_WAIT_S)
    return None


def _numbers(devices: Path) -> list[str]:
    found = sorted(
        (path.name.removeprefix("nvidia") for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)),
        key=int,
    )
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if chosen is None else [number for number in chosen.split(",") if number in found]


def _locked(device: Path) -> bool:
    file = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _held.append(file)
    return True
