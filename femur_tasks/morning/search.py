"""A run's search as people judge it: every trial, and which hyperparameters mattered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from femur_tasks.errors import NotFound
from femur_tasks.registry.tables import Run, Search, Trial, TrialEpoch
from femur_tasks.search.space import LogFloat, Space, from_json
from femur_tasks.steps.progress import SearchProgress, run_progress

_ENOUGH = 8
_LINES = 1000


@dataclass(frozen=True)
class SearchFacts:
    """One search.

    Attributes:
        dimensions: what was searched, in the order of the space.
        trials: the last trial of each configuration, best first; at most a thousand.
        importance: share of each hyperparameter in what tells good trials from the others, largest first; empty below
            eight trials.
        pace: device seconds spent by the end of a trial, and the best score by then.
    """

    run_id: str
    search: str
    progress: SearchProgress
    dimensions: tuple[str, ...]
    logarithmic: tuple[str, ...]
    trials: tuple[Trial, ...]
    importance: tuple[tuple[str, float], ...]
    pace: tuple[tuple[float, float], ...]


def search_facts(session: Session, run_id: str, name: str | None = None) -> SearchFacts:
    """A search of a run, its first by name where none is named.

    Raises:
        NotFound: the run has no such search.
    """
    progress = run_progress(session, run_id)
    found = next((search for search in progress.searches if name in (None, search.search)), None)
    if found is None:
        what = f"Expected a run with a search. Received: {run_id}, which trained none."
        raise NotFound(what, "Retrain with the family tuned.")
    space = from_json(session.get_one(Search, (run_id, found.search)).space)
    mine = (Trial.run_id == run_id, Trial.search == found.search)
    went_on = select(Trial.parent_id).where(*mine, Trial.parent_id.is_not(None))
    last = session.scalars(
        select(Trial)
        .where(*mine, Trial.trial_id.not_in(went_on), Trial.state == "completed")
        .order_by(Trial.score.desc(), Trial.trial_id)
        .limit(_LINES)
    ).all()
    return SearchFacts(
        run_id=run_id,
        search=found.search,
        progress=found,
        dimensions=tuple(space),
        logarithmic=tuple(name for name, dimension in space.items() if isinstance(dimension, LogFloat)),
        trials=tuple(last),
        importance=importance(space, [(trial.hyperparameters, trial.score or 0.0) for trial in last]),
        pace=_pace(session, run_id, found.search),
    )


def _pace(session: Session, run_id: str, name: str) -> tuple[tuple[float, float], ...]:
    seconds = (
        select(TrialEpoch.trial_id, func.sum(TrialEpoch.seconds).label("seconds"))
        .where(TrialEpoch.run_id == run_id, TrialEpoch.search == name)
        .group_by(TrialEpoch.trial_id)
        .subquery()
    )
    ended = session.execute(
        select(seconds.c.seconds, Trial.score)
        .join(Trial, Trial.trial_id == seconds.c.trial_id)
        .where(Trial.run_id == run_id, Trial.search == name, Trial.state == "completed")
        .order_by(Trial.finished_at, Trial.trial_id)
    )
    points, spent, best = [], 0.0, 0.0
    for cost, score in ended:
        spent, best = spent + float(cost), max(best, score or 0.0)
        points.append((spent, best))
    return tuple(points)


def newest_search(session: Session, model: str) -> str | None:
    """The last run of a model that searched; None before the first."""
    return session.scalars(
        select(Search.run_id)
        .join(Run, Run.run_id == Search.run_id)
        .where(Run.model == model)
        .order_by(Run.started_at.desc(), Run.run_id)
        .limit(1)
    ).first()


def importance(space: Space, scored: list[tuple[dict[str, Any], float]]) -> tuple[tuple[str, float], ...]:
    """How much each dimension tells the best quarter of the trials from all of them; the shares add up to 1.

    Args:
        scored: hyperparameters and score of trials.

    Source: Watanabe, Bansal, Hutter, PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces, IJCAI 2023, as Optuna has it.
    """
    if len(scored) < _ENOUGH:
        return ()
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    distributions: dict[str, BaseDistribution] = {
        name: FloatDistribution(dimension.low, dimension.high, log=True)
        if isinstance(dimension, LogFloat)
        else CategoricalDistribution(dimension.values)
        for name, dimension in space.items()
    }
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for values, score in scored:
        asked = {name: values[name] for name in distributions}
        study.add_trial(optuna.create_trial(params=asked, distributions=distributions, value=score))
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25))
    return tuple(sorted(found.items(), key=lambda pair: -pair[1]))
