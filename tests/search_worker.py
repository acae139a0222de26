"""One worker of a run's search, in a process that may be killed: `python -m tests.search_worker RUN_ID OWNER`.

Its budget is small: R = 9 on pictures of 32 x 32.
"""

from __future__ import annotations

import sys
from dataclasses import replace

from femur_tasks import parameters
from femur_tasks.steps.context import open_context
from femur_tasks.steps.search import work_on_search

BUDGET = replace(parameters.BUDGETS["smoke"], size=32, max_epochs=9)
parameters.BUDGETS["smoke"] = BUDGET  # type: ignore[index]  # a test's own budget, nobody else's

if __name__ == "__main__":
    work_on_search(open_context(), sys.argv[1], sys.argv[2])
