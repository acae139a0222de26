"""`python -m femur_tasks.stack.launch PART`: what supervisord runs in place of the part.

A part killed with SIGKILL leaves its children behind, which would live on beside those of its replacement.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from femur_tasks.stack import leftovers


def main() -> None:
    """End what an earlier life of this part left, then become the part."""
    name, home = sys.argv[1], Path(os.environ[leftovers.HOME_MARK])
    leftovers.end(home, {name})
    leftovers.note_session(home)
    spec = json.loads((home / "parts" / f"{name}.json").read_text())
    os.chdir(spec["cwd"])
    os.execve(spec["argv"][0], spec["argv"], os.environ | spec["env"])  # noqa: S606 - argv is written by the stack


if __name__ == "__main__":
    main()
