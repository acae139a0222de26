"""One worker of a run's search, in a process that may be killed: `python -m tests.search_worker RUN_ID OWNER`.

Its budget is small: R = 9 on pictures of 32 x 32. The trials' own processes learn of it by importing this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from femur_tasks import parameters
from femur_tasks.steps.context import Context, open_context
from femur_tasks.steps.search import work_on_search

BUDGET = replace(parameters.BUDGETS["smoke"], size=32, max_epochs=9)
parameters.BUDGETS["smoke"] = BUDGET  # type: ignore[index]  # a test's own budget, nobody else's


class SmallContext(Context):
    """Steps of this budget."""

    def apart(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return super().apart(in_this_budget, step, *args, **kwargs)


def in_this_budget(context: Context, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return step(context, *args, **kwargs)


def main(run_id: str, owner: str) -> None:
    work_on_search(SmallContext(**vars(open_context())), run_id, owner)


if __name__ == "__main__":
    from tests import search_worker

    search_worker.main(*sys.argv[1:])
