"""The morning page in Airflow's real api-server: who may see what, what it says, and that nothing of a caller's breaks
it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from femur_tasks.registry.database import Registry
from femur_tasks.registry.promotion import promote
from femur_tasks.registry.tables import (
    ComparisonManifest,
    DatasetCase,
    DatasetSheet,
    EvaluationCase,
    Fit,
    FitEpoch,
    Run,
    Search,
    Trial,
    TrialEpoch,
    VerdictPicture,
)
from femur_tasks.search.space import GRID, to_json
from femur_tasks.settings import Settings
from femur_tasks.stack.control import down, up
from femur_tasks.stack.secrets import airflow_password
from femur_tasks.steps.context import Context, utc_now
from femur_tasks.steps.prediction_rates import record_rates
from femur_tasks.storage import open_store
from tests import registry_rows as rows
from tests.pages import Page, text_of

pytestmark = pytest.mark.timeout(240)
NIGHT = "scheduled__2026-01-0"
HOSTILE = "<script>alert(1)</script>"
TABS = ("", "tonight", "verdict", "history", "incoming", "datasets", "search")
CASES = [f"C{number:02}" for number in range(30)]
Login = Callable[[str], httpx.Client]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A home with a running store and api-server, an operator and a viewer."""
    home = tmp_path_factory.mktemp("page") / "home"
    chosen = Settings(home=home, users={"anna": "op", "bert": "viewer"}, _env_file=home / "stack.env")
    try:
        up(chosen, only={"store", "api-server"}, wait_s=200)
        yield Settings(home=home, users=chosen.users, _env_file=home / "stack.env")
    finally:
        down(chosen)


@pytest.fixture(scope="module")
def login(settings: Settings) -> Iterator[Login]:
    """Clients with a user's token, one a user; the empty name has none."""
    clients: dict[str, httpx.Client] = {}

    def of(user: str) -> httpx.Client:
        if user not in clients:
            client = httpx.Client(base_url=settings.airflow_url, trust_env=False, timeout=60)
            if user:
                told = {"username": user, "password": airflow_password(settings.home, user)}
                token = client.post("/auth/token", json=told).raise_for_status().json()["access_token"]
                client.headers["Authorization"] = f"Bearer {token}"
            clients[user] = client
        return clients[user]

    yield of
    for client in clients.values():
        client.close()


def test_empty_registry_says_what_to_do_next(login: Login) -> None:
    for tab, said in (("", "femur ingest"), ("tonight", "femur retrain"), ("verdict", "No verdict"),
                      ("history", "No model version"), ("incoming", "incoming-images/femur/"),
                      ("datasets", "--dry-run"), ("search", "No search")):  # fmt: skip
        answer = login("bert").get(f"/femur/{tab}")
        assert answer.status_code == 200
        assert said in text_of(answer.text), tab
    assert login("bert").get("/femur/api/v1/champions").json() == []


@pytest.fixture(scope="module")
def night(settings: Settings, login: Login) -> Registry:
    """A champion of last week, and a challenger that replaced it last night, with everything that the page shows."""
    test_empty_registry_says_what_to_do_next(login)  # before there is anything
    registry = Registry(settings.database_url)
    png = open_store(settings).put(b"\x89PNG picture", "pictures")
    overlay = open_store(settings).put(b"\x89PNG overlay", "predictions")
    sheet = open_store(settings).put(b"\xff\xd8 sheet", "pictures")
    with registry.writing() as session:
        version = rows.dataset_version(session)
        version.source = HOSTILE
        session.add(
            DatasetSheet(digest=version.digest, position=0, title="Cases of test", alt=HOSTILE, picture_key=sheet)
        )
        session.add_all(
            DatasetCase(digest=version.digest, case_id=case, patient=case, split="test", image_sha256=f"i{case}",
                        mask_sha256=f"m{case}", height_px=512 if place % 2 else 1024, width_px=512, problems=[],
                        source="clinic")
            for place, case in enumerate(CASES)
        )  # fmt: skip
        session.add(ComparisonManifest(
            digest="m", dataset_digest=version.digest, cases_digest="c", excluded=[], frozen_at=rows.NOON,
            cases=[[case, f"i{case}", f"m{case}"] for case in CASES],
        ))  # fmt: skip
        session.flush()
        old, new = (
            rows.model_version(session, number, version.digest, created_at=rows.NOON + timedelta(days=number),
                               family="tuned") for number in (1, 2)
        )  # fmt: skip
        former = rows.model_version(session, 1, version.digest, model="former", family="tuned")
        rows.evaluation(session, former, "m", cases=len(CASES), metric="femur-metrics/0 test", mean_dice=0.7)
        first = rows.verdict(session, old, None, manifest_digest="m")
        for model, gain in ((old, 0.0), (new, 0.02)):
            # the page shows what this code's metric found
            scored = rows.evaluation(session, model, "m", cases=len(CASES), metric=_metric(), mean_dice=0.9 + gain)
            session.add_all(
                EvaluationCase(evaluation_id=scored.id, case_id=case, dice=0.8 + gain + place / 300, hd95_pct=2.0,
                               dice_left=0.9, dice_right=0.9 + gain)
                for place, case in enumerate(CASES)
            )  # fmt: skip
        promote(session, first.id, "anna", rows.NOON)
        second = rows.verdict(session, new, old, manifest_digest="m", mean_difference=0.02, difference_low=0.01,
                              difference_high=0.03)  # fmt: skip
        session.add(VerdictPicture(verdict_id=second.id, case_id="C00", position=0, challenger_key=png))
        promote(session, second.id, HOSTILE, rows.NOON + timedelta(days=7))
        run = session.get_one(Run, new.run_id)
        run.state, run.detail, run.started_at = "promoted", "every rule holds", rows.NOON + timedelta(days=7)
        session.add(Fit(run_id=run.run_id, family="tuned", planned_epochs=3))
        session.flush()
        for epoch in (1, 2, 3):
            session.add(FitEpoch(run_id=run.run_id, family="tuned", epoch=epoch, loss=0.5, val_dice=0.3 * epoch,
                                 seconds=2.0, at=rows.NOON))  # fmt: skip
        session.add(Search(run_id=run.run_id, search="tuned", strategy="grid", space=to_json(GRID), max_epochs=5,
                           factor=3, samples=12, seed=0, fixed={}, state="done", waits=False,
                           strategy_state={}))  # fmt: skip
        session.flush()
        for number in range(12):
            values = {"initializer": "he_normal", "dropout": (0.2, 0.3, 0.5)[number % 3], "beta_1": 0.9,
                      "beta_2": 0.999}  # fmt: skip
            trial_id = f"{number:04}"
            session.add(Trial(
                run_id=run.run_id, search="tuned", trial_id=trial_id, hyperparameters=values, bracket=0, rung=0,
                from_epoch=0, to_epoch=5, state="completed", told=True, score=0.9 - values["dropout"] / 10,
                best_epoch=1, failures=0, owner="w", token=1, lease_expires_at=rows.NOON, detail="",
                finished_at=rows.NOON + timedelta(minutes=number),
            ))  # fmt: skip
            session.flush()
            session.add(TrialEpoch(run_id=run.run_id, search="tuned", trial_id=trial_id, epoch=1, loss=0.5,
                                   val_dice=0.8, seconds=3.0, at=rows.NOON))  # fmt: skip
        for number, flags in enumerate(([()] * 9, [("one_femur", "unlike_training"), (), None, ()])):
            at = rows.NOON + timedelta(days=8 + number)
            rows.predicted(session, new, NIGHT + str(number), flags, at, overlay_key=overlay, height_px=2048)
    context = Context(registry, open_store(settings), settings, utc_now)
    for number in range(2):
        record_rates(context, NIGHT + str(number), "femur")
    return registry


def _metric() -> str:
    from femur_tasks.evaluation.metrics import IMPLEMENTATION

    return IMPLEMENTATION


@pytest.mark.parametrize("tab", TABS, ids=[tab or "champion" for tab in TABS])
def test_viewer_sees_every_tab_in_words_and_without_markup_from_data(login: Login, night: Registry, tab: str) -> None:
    page = login("bert").get(f"/femur/{tab}")
    assert page.status_code == 200
    assert Page(page.text).open == [], "every tag is closed where it was opened"
    assert HOSTILE not in page.text
    assert "script-src" not in page.headers["content-security-policy"], "scripts fall back to 'self'"
    assert "frame-ancestors 'self'" in page.headers["content-security-policy"]


def test_dice_of_an_earlier_metric_stands_apart(login: Login, night: Registry) -> None:
    page = login("bert").get("/femur/history?model=former").text
    assert '"name":"tuned, earlier metric"' in page
    assert "30 femur-metrics/0 test 0.9000" in text_of(page)
    assert "Pale ones were scored by an earlier metric" in page


def test_tabs_say_who_why_and_on_what(login: Login, night: Registry) -> None:
    pages = {tab: text_of(login("bert").get(f"/femur/{tab}").text) for tab in TABS}
    assert "femur:2 tuned 0.9200 mean test Dice" in pages[""]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in pages[""], "whoever promoted it, as text"
    assert "Whoever may trigger the DAG rollback_champion" in pages[""], "a viewer has no button"
    assert "tuned 3 of up to 3 0.9000" in pages["tonight"]
    assert "femur:2 replaces femur:1 as champion of femur" in pages["verdict"]
    assert "✓ pass gain" in pages["verdict"]
    assert "right femur 30 +0.0200" in pages["verdict"]
    assert "C00 0.8200 0.8000 +0.0200" in pages["verdict"]
    assert "femur:1 2026-01-01 12:00 2026-01-08 12:00 promote anna" in pages["history"]
    assert "earlier metric" not in pages["history"]
    assert "2 of 4 pictures need a look" in pages["incoming"]
    assert "scheduled__2026-01-01-2.png refused no_femur: none" in pages["incoming"]
    assert "10 January 2026, 12:00 UTC 1 (25 %) 1 (25 %) 1 (25 %) 0 (0 %)" in pages["incoming"], "refused, unlike, one"
    assert "height px large" in pages["incoming"], "twice as high as in training"
    assert "dropout 96 %" in pages["search"], "it alone differs, and decides"


def test_prometheus_may_scrape_with_the_token_of_a_viewer(login: Login, night: Registry) -> None:
    answer = login("bert").get("/femur/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'femur_champion_test_dice{model="femur"} 0.92' in answer.text


def test_run_tab_shows_the_verdict_and_says_where_none_belongs(login: Login, night: Registry) -> None:
    assert "femur:2 replaces femur:1" in login("bert").get("/femur/run", params={"run": "femur-run-2"}).text
    assert "trains no model" in login("bert").get("/femur/run", params={"run": "manual__2026"}).text


def test_picture_comes_by_a_key_of_the_registry_and_only_whole(
    login: Login, night: Registry, settings: Settings
) -> None:
    asked = {"verdict": 2, "case": "C00", "whose": "challenger"}
    answer = login("bert").get("/femur/picture", params=asked)
    assert (answer.content, answer.headers["content-type"]) == (b"\x89PNG picture", "image/png")
    assert login("bert").get("/femur/picture", params={**asked, "whose": "champion"}).status_code == 404
    assert login("bert").get("/femur/picture", params={**asked, "case": "../secrets.json"}).status_code == 404
    with night.writing() as session:
        key = session.get_one(VerdictPicture, (2, "C00")).challenger_key
    open_store(settings).put_named(b"\x89PNG other!!", key)
    assert login("bert").get("/femur/picture", params=asked).status_code == 409
    open_store(settings).put_named(b"\x89PNG picture", key)


def test_contact_sheet_of_a_dataset_version_is_shown_in_place(login: Login, night: Registry) -> None:
    asked = {"version": rows.digest_of("v1"), "position": "0"}
    assert f'src="/femur/sheet?version={asked["version"]}&position=0"' in unescape(
        login("bert").get("/femur/datasets").text
    )
    answer = login("bert").get("/femur/sheet", params=asked)
    assert (answer.content, answer.headers["content-type"]) == (b"\xff\xd8 sheet", "image/jpeg")
    for other in ({"position": "1"}, {"version": "../secrets.json"}):
        assert login("bert").get("/femur/sheet", params={**asked, **other}).status_code == 404


def test_incoming_overlay_comes_by_the_name_of_its_picture(login: Login, night: Registry) -> None:
    asked = {"key": f"incoming-images/femur/{NIGHT}1-0.png", "etag": "e"}
    answer = login("bert").get("/femur/incoming-picture", params=asked)
    assert (answer.content, answer.headers["content-type"]) == (b"\x89PNG overlay", "image/png")
    for other in ({"etag": "f"}, {"key": "predictions/x"}):
        assert login("bert").get("/femur/incoming-picture", params={**asked, **other}).status_code == 404
    page = login("bert").get("/femur/incoming").text
    assert unescape(page).count(f"/incoming-picture?key={quote(asked['key'], safe='/')}&etag=e") == 1


def test_nights_of_pictures_are_paged_filtered_and_tagged(login: Login, night: Registry) -> None:
    client = login("bert")
    nights = client.get("/femur/api/v1/incoming-nights", params={"model": "femur", "limit": 1})
    (newest,) = nights.json()["items"]
    assert (nights.json()["total"], newest["run_id"], newest["version"]) == (2, f"{NIGHT}1", "femur:2")
    assert {flag: n for flag, n in newest["counts"].items() if n} == {
        "refused": 1,
        "unlike_training": 1,
        "one_femur": 1,
    }
    assert client.get("/femur/api/v1/incoming-nights", params={"model": "hip"}).json()["total"] == 0
    again = client.get(
        "/femur/api/v1/incoming-nights", params={"model": "femur", "limit": 1},
        headers={"If-None-Match": nights.headers["etag"]},
    )  # fmt: skip
    assert again.status_code == 304
    whole = client.get(f"/femur/api/v1/incoming-nights/femur/{NIGHT}1").json()
    assert [row["feature"] for row in whole["drift"] if row["level"] == "large"] == ["height_px"]
    flagged = client.get("/femur/api/v1/incoming-pictures", params={"flag": "one_femur"}).json()
    assert [row["key"][-5:] for row in flagged["items"]] == ["0.png"]
    settled = client.get("/femur/api/v1/incoming-pictures", params={"state": "predicted", "limit": 5}).json()
    assert (len(settled["items"]), settled["total"]) == (5, 12)


def routes(login: Login) -> list[tuple[str, str]]:
    """Every path of the API with values in it, and every tab."""
    spec = login("bert").get("/femur/api/v1/openapi.json").json()
    found = [(method, re.sub(r"{\w+}", "1", path)) for path, ways in spec["paths"].items() for method in ways]
    assert len(found) > 12
    return [*found, *(("get", f"/{tab}") for tab in TABS), ("get", "/run"), ("get", "/tonight/live?run=1"),
            ("get", "/report?run=1"), ("get", "/ingest-report?ingest=1"), ("get", "/api/v1/openapi.json"),
            ("get", "/picture?verdict=1&case=1&whose=champion"), ("get", "/files/femur/1/onnx"),
            ("get", "/metrics"), ("get", "/incoming-picture?key=1&etag=1"), ("get", "/sheet?version=1&position=0"),
            ("post", "/rollback")]  # fmt: skip


def test_anonymous_gets_nothing_and_a_viewer_may_not_act(login: Login, night: Registry) -> None:
    for method, path in routes(login):
        assert login("").request(method, f"/femur{path}").status_code == 401, path
        if method != "get":
            body = {"model": "femur", "reason": "because"}
            assert login("bert").request(method, f"/femur{path}", json=body).status_code == 403, path
            assert login("bert").request(method, f"/femur{path}", data=body).status_code == 403, path


def test_another_site_cannot_make_an_operator_act(login: Login, settings: Settings) -> None:
    cookie = {"_token": login("anna").headers["Authorization"].removeprefix("Bearer ")}
    told: dict[str, Any] = {"data": {"model": "femur", "reason": "because"}, "follow_redirects": False}
    with httpx.Client(base_url=settings.airflow_url, trust_env=False, cookies=cookie, timeout=60) as browser:
        for origin in ({}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            assert browser.post("/femur/rollback", headers=origin, **told).status_code == 403
        mine = browser.post("/femur/rollback", headers={"Origin": settings.airflow_url}, **told)
    # past the check; this stack has parsed no DAG, which Airflow says itself
    assert (mine.status_code, "rollback_champion" in mine.text) == (404, True)


def test_versions_are_paged_filtered_and_tagged(login: Login, night: Registry) -> None:
    client, asked = login("bert"), {"model": "femur", "limit": 1, "offset": 1}
    page = client.get("/femur/api/v1/model-versions", params=asked)
    assert ([row["version"] for row in page.json()["items"]], page.json()["total"]) == ([1], 2)
    former = client.get("/femur/api/v1/model-versions", params={"status": "champion"}).json()
    assert [row["version"] for row in former["items"]] == [2]
    again = client.get(
        "/femur/api/v1/model-versions",
        params=asked,
        headers={"If-None-Match": page.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/femur/api/v1/model-versions", params={"limit": 501}).status_code == 422


def test_dataset_versions_are_paged(login: Login, night: Registry) -> None:
    told = login("bert").get("/femur/api/v1/dataset-versions", params={"offset": 1}).json()
    assert (told["items"], told["total"], told["offset"]) == ([], 1, 1)


@pytest.mark.parametrize(
    "path",
    [f"picture?verdict={10**30}&case=1&whose=champion", f"files/femur/{10**30}/onnx", f"history?before={10**30}",
     "?model=a%00", "api/v1/champions/a%00", "api/v1/incoming-pictures?flag=%00"],
    ids=["verdict", "version", "before", "model", "path", "flag"],
)  # fmt: skip
def test_what_no_database_can_hold_is_not_understood(login: Login, night: Registry, path: str) -> None:
    assert login("bert").get(f"/femur/{path}").status_code == 422


def test_api_tells_the_verdict_with_rules_slices_and_cases(login: Login, night: Registry) -> None:
    told = login("bert").get("/femur/api/v1/runs/femur-run-2/verdict").json()
    assert (told["outcome"], told["challenger"], told["champion"]) == ("promote", "femur:2", "femur:1")
    assert told["rules"][0]["passed"] is True
    assert told["slices"][0]["name"] == "all test cases"
    assert told["cases"][0]["case_id"] == "C00"
    missing = login("bert").get("/femur/api/v1/runs/nowhere/verdict")
    assert (missing.status_code, missing.json()["detail"][:14]) == (404, "Expected a run")


def test_no_question_brings_the_api_down(login: Login, night: Registry, settings: Settings) -> None:
    """Schemathesis asks by the API's own specification, in bounds and out of them."""
    schema = schemathesis.openapi.from_dict(login("bert").get("/femur/api/v1/openapi.json").json())
    headers = {"Authorization": login("bert").headers["Authorization"]}
    asked = 0
    for operation in schema.get_all_operations():
        for case in _cases(operation.ok()):
            answer = case.call(base_url=f"{settings.airflow_url}/femur", headers=headers)
            case.validate_response(answer, checks=[not_a_server_error])
            asked += 1
    assert asked > 100


def _cases(operation: Any) -> list[Any]:
    import hypothesis

    found: list[Any] = []

    @hypothesis.settings(
        max_examples=12, database=None, deadline=None, derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(operation.as_strategy())
    def collect(case: Any) -> None:
        found.append(case)

    collect()
    return found


def test_defect_shows_a_number_and_no_traceback(login: Login, night: Registry, settings: Settings) -> None:
    broken = ("femur-run-2", "tuned", "0000")
    with night.writing() as session:
        session.get_one(Trial, broken).hyperparameters = {"dropout": []}  # what no code of ours writes
    try:
        page = login("bert").get("/femur/search")
        number = re.search(r"Number (\w{8}) in the api-server", page.text)
        assert (page.status_code, number is not None) == (500, True)
        assert "Traceback" not in page.text
        assert number is not None
        log, defect = settings.home / "logs" / "api-server.log", f"defect {number.group(1)}"
        # supervisord writes the log, a moment after the server has spoken
        Retrying(stop=stop_after_delay(10), wait=wait_fixed(0.2), retry=retry_if_result(lambda seen: not seen))(
            lambda: defect in log.read_text()
        )
    finally:
        with night.writing() as session:
            session.get_one(Trial, broken).hyperparameters = session.get_one(
                Trial, (*broken[:2], "0003")
            ).hyperparameters
