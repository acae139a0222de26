"""Loaded by the fork server alone: it takes its socket's folder along.

Whoever started the server may end without cleaning up: killed, or by `os._exit`, as Airflow's task processes do.
"""

import atexit
import shutil
from multiprocessing import forkserver
from pathlib import Path


def _remove_folder() -> None:
    address = getattr(forkserver._forkserver, "_forkserver_address", None)
    folder = Path(address).parent if address else None
    if folder is not None and folder.name.startswith("pymp-"):
        shutil.rmtree(folder, ignore_errors=True)


atexit.register(_remove_folder)  # its children end by `os._exit` and never come here
