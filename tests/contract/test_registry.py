"""What the registry database promises, on SQLite and on PostgreSQL: schema, transactions, promotions, views."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import event, inspect, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from femur_tasks.errors import FemurError, NotFound, StaleChampion, Unreachable
from femur_tasks.registry import queries
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.promotion import champion_of, promote, rollback
from femur_tasks.registry.tables import Base, Champion, Dataset, ModelVersion, Promotion, Run, VerdictRow
from femur_tasks.settings import CHECKOUT
from tests import registry_rows as rows

NOON = rows.NOON
HOUR = timedelta(hours=1)
VIEWS = ("model_registry", "champion_history", "gate_account", "leaderboard", "trial_board")


def runs(session: Session) -> list[Run]:
    return list(session.scalars(select(Run)))


def _names(registry: Registry) -> set[str]:
    found = inspect(registry.engine)
    return {*found.get_table_names(), *found.get_view_names()} - {"alembic_version"}


def _downgrade(registry: Registry) -> None:
    config = Config()
    config.set_main_option("script_location", str(CHECKOUT / "femur_tasks/registry/migrations"))
    config.attributes["engine"] = registry.engine
    command.downgrade(config, "base")


def test_migrations_go_from_nothing_to_head_and_back(database_url: str) -> None:
    registry = Registry(database_url)
    migrate(database_url)
    assert _names(registry) == {*Base.metadata.tables, *VIEWS}
    migrate(database_url)  # at head already: nothing to do
    _downgrade(registry)
    assert _names(registry) == set()
    migrate(database_url)
    assert len(_names(registry)) == len(Base.metadata.tables) + len(VIEWS)
    registry.engine.dispose()


def test_models_and_migrations_describe_the_same_tables(registry: Registry) -> None:
    with registry.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "include_schemas": False}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_comparison_of_models_and_migrations_notices_a_missing_column(database_url: str) -> None:
    migrate(database_url)
    registry = Registry(database_url)
    with registry.engine.begin() as connection:
        connection.execute(text("alter table fit drop column best_key"))
    with registry.engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert [(kind, table, column.name) for kind, _, table, column in found] == [("add_column", "fit", "best_key")]
    registry.engine.dispose()


@pytest.mark.parametrize("table", ["verdict_reason", "notification"], ids=["of the first", "of a later one"])
def test_migration_that_breaks_off_leaves_nothing_behind(database_url: str, table: str) -> None:
    registry = Registry(database_url)
    migrate(database_url)
    _downgrade(registry)
    with registry.engine.begin() as connection:
        connection.execute(text(f"create table {table} (planted integer)"))
    with pytest.raises(Unreachable, match="already exists"):
        migrate(database_url)
    assert _names(registry) == {table}
    with registry.engine.begin() as connection:
        connection.execute(text(f"drop table {table}"))
    migrate(database_url)
    registry.engine.dispose()


def test_processes_that_migrate_at_once_all_succeed(database_url: str) -> None:
    script = f"from femur_tasks.registry.database import migrate; migrate({database_url!r})"
    migrating = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]  # noqa: S603
    assert [process.wait(60) for process in migrating] == [0, 0]


def test_sqlite_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path / 'home' / 'registry.db'}")
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    for file in (tmp_path / "home").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name


def test_plain_postgresql_url_is_served_by_the_driver_that_is_installed() -> None:
    assert Registry("postgresql://someone@nowhere/registry").engine.driver == "psycopg2"
    assert Registry("postgresql+psycopg2://someone@nowhere/registry").engine.driver == "psycopg2"


# Transactions


def _datasets(registry: Registry) -> list[str]:
    with registry.reading() as session:
        return list(session.scalars(select(Dataset.name).order_by(Dataset.name)))


def _dataset(name: str) -> Dataset:
    return Dataset(name=name, model="femur", budget="nightly", created_at=NOON)


def test_writing_commits_at_the_end_of_the_block(registry: Registry) -> None:
    with registry.writing() as session:
        session.add(_dataset("kept"))
    assert _datasets(registry) == ["kept"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, FemurError])
def test_writing_rolls_back_on_any_exception(registry: Registry, error: type[BaseException]) -> None:
    def breaks_off() -> None:
        with registry.writing() as session:
            session.add(_dataset("lost"))
            session.flush()
            raise error("planted")

    with pytest.raises(error, match="planted"):
        breaks_off()
    assert _datasets(registry) == []


def test_reading_never_writes(registry: Registry) -> None:
    with registry.reading() as session:
        session.add(_dataset("lost"))
        session.flush()
    assert _datasets(registry) == []


def test_times_come_back_in_utc(registry: Registry) -> None:
    zurich = timezone(timedelta(hours=1))
    with registry.writing() as session:
        session.add(
            Dataset(name="a", model="femur", budget="smoke", created_at=datetime(2026, 1, 1, 13, tzinfo=zurich))
        )
    with registry.reading() as session:
        found = session.get_one(Dataset, "a").created_at
    assert (found, found.tzinfo) == (datetime(2026, 1, 1, 12, tzinfo=UTC), UTC)


def test_foreign_keys_are_enforced(registry: Registry) -> None:
    with pytest.raises(IntegrityError), registry.writing() as session:
        session.add(Champion(model="femur", model_version_id=99, since=NOON))


@pytest.mark.parametrize(
    "statement",
    [
        "insert into promotion (model, kind, to_id, actor, reason, at) values ('femur', 'demote', 1, '', '', :now)",
        "update verdict set outcome = 'maybe'",
    ],
)
def test_words_outside_the_vocabulary_are_refused_by_the_schema(registry: Registry, statement: str) -> None:
    with registry.writing() as session:
        model = rows.model_version(session, 1, rows.dataset_version(session).digest)
        rows.verdict(session, model, None)
    with pytest.raises(IntegrityError), registry.writing() as session:
        session.execute(text(statement), {"now": NOON} if ":now" in statement else {})


def test_database_without_tables_says_what_to_do(database_url: str) -> None:
    registry = Registry(database_url)
    with pytest.raises(Unreachable, match="femur up"), registry.reading() as session:
        runs(session)
    registry.engine.dispose()


def test_database_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    registry = Registry(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}")
    with pytest.raises(Unreachable, match="FEMUR_REGISTRY_URL"), registry.reading() as session:
        runs(session)


def test_driver_that_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(FemurError, match="postgres"):
        Registry("postgresql://someone@nowhere/registry")


def test_writer_waits_for_the_one_before(registry: Registry) -> None:
    """On SQLite the second waits for the file's lock, on PostgreSQL for the row's; nobody's write is lost."""
    with registry.writing() as session:
        session.add(_dataset("shared"))
    holds, told = threading.Event(), []

    def second() -> None:
        assert holds.wait(10)
        with registry.writing() as session:
            row = session.get_one(Dataset, "shared", with_for_update=True)
            told.append("the second has the row")
            row.budget += "+second"

    thread = threading.Thread(target=second)
    thread.start()
    with registry.writing() as session:
        session.get_one(Dataset, "shared", with_for_update=True).budget = "first"
        session.flush()
        holds.set()
        time.sleep(0.4)
        told.append("the first ends")
    thread.join(30)
    with registry.reading() as session:
        assert session.get_one(Dataset, "shared").budget == "first+second"
    assert told == ["the first ends", "the second has the row"]


def test_sqlite_database_that_stays_locked_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("femur_tasks.registry.database._BUSY_TIMEOUT_S", 0.2)
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    migrate(url)
    holder, other = Registry(url), Registry(url)
    with holder.writing() as held:
        assert runs(held) == []  # the lock comes with the first look, not with the first change
        with other.reading() as session:  # readers go on meanwhile
            assert runs(session) == []
        with pytest.raises(Unreachable, match="locked"), other.writing() as session:
            runs(session)


# Promotions


class Line:
    """A model's versions, promoted one after the other through verdicts."""

    def __init__(self, registry: Registry, model: str = "femur") -> None:
        self.registry = registry
        self.model = model
        self._at = NOON
        with registry.writing() as session:
            self._digest = rows.dataset_version(session, content=model, name=model).digest

    def version(self, number: int, **values: Any) -> None:
        with self.registry.writing() as session:
            rows.model_version(session, number, self._digest, self.model, **values)

    def verdict(self, challenger: int, champion: int | None, outcome: str = "promote", **values: Any) -> int:
        with self.registry.writing() as session:
            found = {row.version: row for row in session.scalars(select(ModelVersion).filter_by(name=self.model))}
            return rows.verdict(session, found[challenger], found[champion] if champion else None, outcome, **values).id

    def promoted(self, challenger: int, champion: int | None) -> int:
        """Make the challenger champion, an hour after the last move; the verdict's id."""
        verdict = self.verdict(challenger, champion)
        self.move(lambda session, at: promote(session, verdict, "cli:ann", at))
        return verdict

    def rolled_back(self, version: int | None = None) -> None:
        self.move(lambda session, at: rollback(session, self.model, version, "cli:ann", "it was worse", at))

    def move(self, how: Callable[[Any, datetime], Promotion]) -> None:
        self._at += HOUR
        with self.registry.writing() as session:
            how(session, self._at)

    @property
    def champion(self) -> int | None:
        with self.registry.reading() as session:
            found = champion_of(session, self.model)
            return found.version if found else None

    @property
    def log(self) -> list[tuple[str, int | None, int]]:
        with self.registry.reading() as session:
            version = {row.id: row.version for row in session.scalars(select(ModelVersion))}
            moves = session.scalars(select(Promotion).where(Promotion.model == self.model).order_by(Promotion.id))
            return [(row.kind, version[row.from_id] if row.from_id else None, version[row.to_id]) for row in moves]


@pytest.fixture
def line(registry: Registry) -> Line:
    made = Line(registry)
    for number in (1, 2, 3, 4):
        made.version(number)
    return made


def test_model_has_at_most_one_champion_by_schema(line: Line) -> None:
    line.promoted(1, None)
    with line.registry.reading() as session:
        second = session.scalars(select(ModelVersion.id).where(ModelVersion.version == 2)).one()
    with pytest.raises(IntegrityError), line.registry.writing() as session:
        session.execute(
            text("insert into champion (model, model_version_id, since) values ('femur', :id, :at)"),
            {"id": second, "at": NOON},
        )
    assert line.champion == 1


def test_promotions_move_the_pointer_and_append_to_the_log(line: Line) -> None:
    assert line.champion is None
    line.promoted(1, None)
    line.promoted(2, 1)
    assert line.champion == 2
    assert line.log == [("promote", None, 1), ("promote", 1, 2)]


def test_models_have_champions_of_their_own(line: Line) -> None:
    hip = Line(line.registry, "hip")
    hip.version(7)
    line.promoted(1, None)
    hip.promoted(7, None)
    assert (line.champion, hip.champion) == (1, 7)


def _promote_at_once(registry: Registry, verdicts: list[int]) -> list[int | str]:
    """What each of the promoters got that start together: the id of the log's row, or the error's name."""
    start = threading.Barrier(len(verdicts))

    def one(verdict: int) -> int | str:
        start.wait(10)
        try:
            with registry.writing() as session:
                return promote(session, verdict, "race", NOON).id
        except FemurError as err:
            return type(err).__name__

    with ThreadPoolExecutor(len(verdicts)) as pool:
        return list(pool.map(one, verdicts))


@pytest.mark.parametrize("champion", [None, 1], ids=["first champion", "against a champion"])
def test_of_eight_racing_promoters_one_wins_and_the_others_are_stale(registry: Registry, champion: int | None) -> None:
    line = Line(registry)
    for number in range(1, 10):
        line.version(number)
    if champion:
        line.promoted(champion, None)
    verdicts = [line.verdict(number, champion) for number in range(2, 10)]
    found = _promote_at_once(registry, verdicts)
    assert Counter(answer if isinstance(answer, str) else "won" for answer in found) == {"won": 1, "StaleChampion": 7}
    winner = next(number for number, answer in zip(range(2, 10), found, strict=True) if isinstance(answer, int))
    assert line.champion == winner
    assert line.log[-1] == ("promote", champion, winner)
    assert len(line.log) == (2 if champion else 1)


def test_log_stays_one_line_through_rounds_of_races(registry: Registry) -> None:
    line = Line(registry)
    line.version(1)
    line.promoted(1, None)
    number = 1
    for _ in range(5):
        against = line.champion
        racers = [number := number + 1 for _ in range(3)]
        for racer in racers:
            line.version(racer)
        _promote_at_once(registry, [line.verdict(racer, against) for racer in racers])
    log = line.log
    assert len(log) == 6
    assert [before for _, before, _ in log] == [None, *(after for _, _, after in log[:-1])]
    assert line.champion == log[-1][2]


@pytest.mark.parametrize("champion", [None, 1], ids=["first champion", "against a champion"])
def test_one_verdict_promoted_by_eight_at_once_is_promoted_once(line: Line, champion: int | None) -> None:
    if champion:
        line.promoted(champion, None)
    verdict = line.verdict(2, champion)
    found = _promote_at_once(line.registry, [verdict] * 8)
    assert len(set(found)) == 1
    assert isinstance(found[0], int)
    assert line.log[-1] == ("promote", champion, 2)


def test_promoting_again_returns_the_same_row_even_after_a_rollback(line: Line) -> None:
    line.promoted(1, None)
    verdict = line.promoted(2, 1)
    line.rolled_back()
    with line.registry.writing() as session:
        row = promote(session, verdict, "retry", NOON)
        assert (row.actor, row.verdict_id) == ("cli:ann", verdict)
    assert line.champion == 1
    assert len(line.log) == 3


def test_verdict_against_a_former_champion_is_stale(line: Line) -> None:
    line.promoted(1, None)
    late, first = line.verdict(3, 1), line.verdict(4, None)
    line.promoted(2, 1)
    for verdict in (late, first):
        with pytest.raises(StaleChampion), line.registry.writing() as session:
            promote(session, verdict, "late", NOON)
    assert line.champion == 2
    assert len(line.log) == 2


def test_refusing_verdict_promotes_nothing(line: Line) -> None:
    verdict = line.verdict(1, None, outcome="refuse")
    with pytest.raises(FemurError, match="refuse"), line.registry.writing() as session:
        promote(session, verdict, "cli:ann", NOON)
    assert (line.champion, line.log) == (None, [])


def test_unknown_verdict_is_not_found(line: Line) -> None:
    with pytest.raises(NotFound, match="id 99"), line.registry.writing() as session:
        promote(session, 99, "cli:ann", NOON)


def test_promotion_whose_transaction_breaks_off_leaves_pointer_and_log_alone(line: Line) -> None:
    line.promoted(1, None)
    verdict = line.verdict(2, 1)

    def breaks_off() -> None:
        with line.registry.writing() as session:
            promote(session, verdict, "cli:ann", NOON)
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        breaks_off()
    assert line.champion == 1
    assert line.log == [("promote", None, 1)]


def test_rollback_returns_to_the_champion_before(line: Line) -> None:
    line.promoted(1, None)
    line.promoted(2, 1)
    line.rolled_back()
    assert line.champion == 1
    assert line.log[-1] == ("rollback", 2, 1)


def test_second_rollback_goes_one_further(line: Line) -> None:
    for number in (1, 2, 3):
        line.promoted(number, line.champion)
    line.rolled_back()
    line.rolled_back()
    assert line.champion == 1
    assert line.log[-2:] == [("rollback", 3, 2), ("rollback", 2, 1)]


def test_rollback_to_a_version(line: Line) -> None:
    for number in (1, 2, 3):
        line.promoted(number, line.champion)
    line.rolled_back(1)
    assert line.champion == 1
    line.rolled_back(3)  # a former champion as well: forward again
    assert line.champion == 3


def test_rollback_of_a_version_promoted_twice_undoes_its_last_promotion(line: Line) -> None:
    for number in (1, 2, 3):
        line.promoted(number, line.champion)
    line.rolled_back(1)
    line.promoted(4, 1)
    line.promoted(2, 4)  # judged a second time, against another champion
    line.rolled_back()
    assert line.champion == 4


@pytest.mark.parametrize(
    ("version", "message"),
    [
        pytest.param(4, "version 4", id="never was champion"),
        pytest.param(9, "version 9", id="no such version"),
        pytest.param(2, "version 2", id="is champion already"),
    ],
)
def test_rollback_to_what_is_no_former_champion_is_refused(line: Line, version: int, message: str) -> None:
    line.promoted(1, None)
    line.promoted(2, 1)
    with pytest.raises(NotFound, match=message) as caught:
        line.rolled_back(version)
    assert caught.value.todo == "Former champions: femur:1."
    assert line.champion == 2
    assert len(line.log) == 2


def test_refused_rollback_names_each_former_champion_once(line: Line) -> None:
    for number in (1, 2, 3):
        line.promoted(number, line.champion)
    line.rolled_back(1)
    line.rolled_back(2)
    with pytest.raises(NotFound) as caught:
        line.rolled_back(9)
    assert caught.value.todo == "Former champions: femur:3, femur:1."


def test_rollback_without_a_champion_or_before_the_first_is_refused(line: Line) -> None:
    with pytest.raises(NotFound, match="champion of model femur"):
        line.rolled_back()
    line.promoted(1, None)
    with pytest.raises(NotFound, match="before the present one"):
        line.rolled_back()
    assert line.champion == 1


def test_rollback_never_reaches_another_models_versions(line: Line) -> None:
    hip = Line(line.registry, "hip")
    for number in (7, 8):
        hip.version(number)
        hip.promoted(number, hip.champion)
    line.promoted(1, None)
    with pytest.raises(NotFound):
        line.rolled_back(7)
    assert (line.champion, hip.champion) == (1, 8)


# Views


def test_champion_history_tells_who_served_from_when_to_when(line: Line) -> None:
    line.promoted(1, None)
    line.promoted(2, 1)
    line.rolled_back()
    with line.registry.reading() as session:
        found = queries.champion_history(session, "femur")
    told = [(row["version"], row["kind"], row["previous_version"], row["actor"], row["reason"]) for row in found]
    assert told == [
        (1, "rollback", 2, "cli:ann", "it was worse"),
        (2, "promote", 1, "cli:ann", "verdict 2"),
        (1, "promote", None, "cli:ann", "verdict 1"),
    ]
    hours = [tuple(_hours_after_noon(row[end]) for end in ("since", "until")) for row in found]
    assert hours == [(3, None), (2, 3), (1, 2)]


def _hours_after_noon(value: str | None) -> float | None:
    if value is None:
        return None
    at = datetime.fromisoformat(value)
    return (at.replace(tzinfo=at.tzinfo or UTC) - NOON) / HOUR


def test_champion_history_keeps_models_apart(line: Line) -> None:
    hip = Line(line.registry, "hip")
    hip.version(7)
    line.promoted(1, None)
    hip.promoted(7, None)
    line.promoted(2, 1)
    with line.registry.reading() as session:
        assert [(row["version"], row["until"]) for row in queries.champion_history(session, "hip")] == [(7, None)]
        assert [row["model"] for row in queries.champion_history(session)] == ["femur", "femur", "hip"]


def test_model_registry_tells_each_versions_standing(line: Line) -> None:
    line.promoted(1, None)
    line.promoted(2, 1)
    line.verdict(3, 2, outcome="refuse")
    with line.registry.reading() as session:
        found = {row["version"]: row for row in queries.model_registry(session, "femur")}
        champion = queries.champions(session, "femur")
    assert list(found) == [4, 3, 2, 1]
    told = {number: (row["status"], row["verdict"], row["refused_for"]) for number, row in found.items()}
    assert told == {
        4: ("candidate", None, None),
        3: ("candidate", "refuse", "gain"),
        2: ("champion", "promote", None),
        1: ("former champion", "promote", None),
    }
    assert [row["version"] for row in champion] == [2]
    assert _hours_after_noon(found[2]["champion_since"]) == 2
    assert all(found[number]["champion_since"] is None for number in (1, 3, 4))


def test_model_registry_shows_the_last_test_evaluation_and_verdict(line: Line) -> None:
    line.verdict(1, None, outcome="refuse")
    line.verdict(1, None, outcome="promote")
    with line.registry.writing() as session:
        model = session.scalars(select(ModelVersion).where(ModelVersion.version == 1)).one()
        rows.evaluation(session, model, "older", mean_dice=0.5)
        rows.evaluation(session, model, "newer", mean_dice=0.75, worst_dice=0.25, mean_hd95_pct=2.0, cases=21)
        rows.evaluation(session, model, "validation", mean_dice=1.0, split="val")
    with line.registry.reading() as session:
        (row,) = [row for row in queries.model_registry(session) if row["version"] == 1]
    measured = [row[name] for name in ("test_dice", "test_worst_dice", "test_hd95_pct", "test_cases")]
    assert measured == [0.75, 0.25, 2.0, 21]
    assert (row["verdict"], row["refused_for"]) == ("promote", None)


def test_champion_of_a_model_without_one_is_not_found(line: Line) -> None:
    with line.registry.reading() as session, pytest.raises(NotFound, match="champion of model femur"):
        queries.champions(session, "femur")


@pytest.mark.parametrize("name", ["femur:9", "femur", "femur:x", "hip:1", "femur:-1", ""])
def test_unknown_model_version_is_not_found(line: Line, name: str) -> None:
    with line.registry.reading() as session, pytest.raises(NotFound, match="MODEL:VERSION"):
        queries.model_version(session, name)


def test_model_version_tells_its_verdicts_with_their_reasons(line: Line) -> None:
    line.verdict(1, None, outcome="refuse")
    with line.registry.reading() as session:
        found = queries.model_version(session, "femur:1")
    assert [(verdict["outcome"], len(verdict["reasons"])) for verdict in found["verdicts"]] == [("refuse", 1)]
    assert found["verdicts"][0]["reasons"][0]["code"] == "gain"


def test_many_threads_share_the_few_connections_of_a_process(migrated_postgres: str) -> None:
    registry = Registry(migrated_postgres)
    opened: list[object] = []
    event.listen(registry.engine, "connect", lambda connection, _: opened.append(connection))

    def read(_: int) -> None:
        with registry.reading() as session:
            session.execute(text("select pg_sleep(0.02)"))

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(read, range(80)))
    registry.engine.dispose()
    assert len(opened) == 5


def test_verdict_ids_are_the_order_of_verdicts(line: Line) -> None:
    made = [line.verdict(1, None), line.verdict(2, None), line.verdict(1, None)]
    with line.registry.reading() as session:
        assert list(session.scalars(select(VerdictRow.id).order_by(VerdictRow.id))) == made
