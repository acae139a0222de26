"""`python -m femur_tasks.stack.supervise CONFIG`: supervisord, which leaves nothing behind when it is told to stop.

Airflow puts each task in a process group of its own, which supervisord's stop signal does not reach.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from supervisor import supervisord

from femur_tasks.stack import leftovers


def main() -> None:
    """Run until SIGTERM, SIGINT or a shutdown request; then end the tasks that outlived their part."""
    supervisord.main(["--configuration", sys.argv[1]])
    leftovers.end(Path(os.environ[leftovers.HOME_MARK]))


if __name__ == "__main__":
    main()
