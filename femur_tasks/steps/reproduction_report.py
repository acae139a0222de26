"""Gathers a reproduction's facts from the registry and the store, and writes its page."""

from __future__ import annotations

from sqlalchemy import select

from femur_tasks.parameters import ReproduceParameters
from femur_tasks.registry.tables import DatasetVersion, ExperimentFit, ExperimentRow, Run
from femur_tasks.reports.reproduction import Reproduction, Row, SearchFacts, render
from femur_tasks.search.experiments import BY_NAME
from femur_tasks.steps.context import Context
from femur_tasks.steps.progress import run_progress
from femur_tasks.steps.reproduce import training_size


def write_reproduction(context: Context, run_id: str) -> str:
    """Write the page of a reproduction whose table is there, and return its key."""
    with context.registry.reading() as session:
        run = session.get_one(Run, run_id)
        version = session.get_one(DatasetVersion, run.dataset_digest)
        rows = session.scalars(
            select(ExperimentRow).where(ExperimentRow.run_id == run_id).order_by(ExperimentRow.position)
        ).all()
        fits = session.scalars(select(ExperimentFit).where(ExperimentFit.run_id == run_id)).all()
        strips = {fit.experiment: fit.overlays_key for fit in fits if fit.overlays_key}
        chosen = {fit.experiment: dict(fit.hyperparameters) for fit in fits}
        searches = {
            search.search: SearchFacts(trials=sum(rung.planned for rung in search.rungs), epochs=search.epochs)
            for search in run_progress(session, run_id).searches
        }
        page = Reproduction(
            run_id=run_id,
            dataset=str(run.parameters["dataset"])[:-52],
            budget=str(run.parameters["budget"]),
            size=training_size(ReproduceParameters(**run.parameters), version),
            folds=max(fit.fold for fit in fits) + 1,
            started_at=run.started_at,
            finished_at=run.finished_at,
            rows=tuple(
                Row(
                    title=row.title, reference=row.reference, seeds=row.seeds, cases=row.cases,
                    val=(row.val_dice, row.val_low, row.val_high), test=(row.test_dice, row.test_low, row.test_high),
                    epochs=row.epochs, seconds=row.seconds, sentence=row.sentence,
                    hyperparameters=chosen[row.experiment] if BY_NAME[row.experiment].strategy else {},
                    search=searches.get(row.experiment),
                    strip_png=context.store.get(strips[row.experiment]) if row.experiment in strips else None,
                )
                for row in rows
            ),
        )  # fmt: skip
    return context.store.put(render(page).encode(), "reports")
