"""Loaded by the fork server alone: it takes its socket along, and the socket's folder where nothing else is in it.

Whoever started the server may end without cleaning up: killed, or by `os._exit`, as Airflow's task processes do. A
child that starts a server of its own has its socket in the same folder.
"""

import atexit
import os
import sys
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path


def _remove_socket() -> None:
    address = getattr(forkserver._forkserver, "_forkserver_address", None)
    if address and Path(address).parent.name.startswith("pymp-"):
        Path(address).unlink(missing_ok=True)
        with suppress(OSError):
            Path(address).parent.rmdir()


def _leave() -> None:
    """End at once: Python takes 1.3 s to take TensorFlow's modules apart, and whoever reads what the server and its
    starter print, as Airflow does, waits for that."""
    _remove_socket()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(0)


atexit.register(_leave)  # called last, for registered first; children end by `os._exit` and never come here
