"""The morning page as people meet it: logged in to Airflow, in a real browser, over a night that really ran."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect
from sqlalchemy import select

from femur_tasks.stack.secrets import airflow_password
from tests.e2e.conftest import Stack

pytestmark = pytest.mark.timeout(600)
TABS = ("", "tonight", "verdict", "history", "incoming", "datasets", "search")


def log_in(page: Page, stack: Stack, user: str) -> None:
    page.goto(stack.settings.airflow_url)
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", airflow_password(stack.home, user))
    page.click("button[type=submit]")
    page.get_by_role("link", name="Home").or_(page.get_by_text("Dags").first).first.wait_for()


def open_tab(page: Page, stack: Stack, tab: str, theme: str = "light") -> list[str]:
    """Open a tab by itself; returns what the browser complained about."""
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.add_init_script(f"localStorage.setItem('theme', '{theme}')")
    page.goto(f"{stack.settings.airflow_url}/femur/{tab}")
    page.wait_for_load_state("networkidle")
    return told


def rival(stack: Stack, first_night: str, seed: int) -> str:
    """Another retrain of the same data, of one small family, that asks a person; returns its run id at once."""
    with_baseline = {"dataset": "night", "model": "night", "families": ["baseline"], "seed": seed, "size": 32}
    return stack.airflow.trigger("retrain", {**with_baseline, "budget": "smoke", "require_approval": True})


def test_page_stands_in_the_navigation_and_as_a_tab_of_a_run(stack: Stack, first_night: str, page: Page) -> None:
    log_in(page, stack, "bert")
    page.get_by_role("link", name="Femur").first.click()
    inside = page.frame_locator("iframe")
    expect(inside.get_by_role("heading", name=re.compile(r":\d"))).to_be_visible(timeout=30_000)
    expect(inside.get_by_role("button", name=re.compile("Roll back"))).to_have_count(0)
    page.goto(f"{stack.settings.airflow_url}/dags/retrain/runs/{first_night}/plugin/femur_run")
    expect(page.frame_locator("iframe").get_by_role("heading", name="Rules of the gate")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_tab_has_a_serious_fault_of_access(stack: Stack, first_night: str, page: Page, theme: str) -> None:
    log_in(page, stack, "anna")
    for tab in TABS:
        told = open_tab(page, stack, f"{tab}?model=night", theme)
        assert told == [], tab
        for width in (1280, 768):
            page.set_viewport_size({"width": width, "height": 900})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, tab
        found = Axe().run(page)
        serious = [one for one in found.response["violations"] if one["impact"] in ("serious", "critical")]
        assert [(one["id"], one["nodes"][0]["html"][:200]) for one in serious] == [], tab


def test_charts_are_drawn_and_their_numbers_are_a_key_away(stack: Stack, first_night: str, page: Page) -> None:
    log_in(page, stack, "bert")
    for tab in ("tonight", "history", "search"):
        open_tab(page, stack, f"{tab}?model=night")
        expect(page.locator(".plot svg.main-svg").first).to_be_visible()
        summary = page.locator("summary").first
        summary.focus()
        page.keyboard.press("Enter")
        expect(page.locator("details table").first).to_be_visible()


def test_operator_follows_a_night_that_a_person_approves_reads_why_and_rolls_back(
    stack: Stack, first_night: str, page: Page, cases: Callable[[int], Path]
) -> None:
    run_id = rival(stack, first_night, seed=11)
    log_in(page, stack, "anna")
    stack.until(lambda: _state(stack, run_id), bool)
    open_tab(page, stack, f"tonight?run={quote(run_id)}")
    expect(page.get_by_role("heading", name="Retraining night")).to_be_visible()
    expect(page.locator("#live")).to_contain_text("baseline", timeout=120_000)
    stack.answer(run_id, "Approve")
    expect(page.get_by_role("heading", name="The run ended: promoted")).to_be_visible(timeout=60_000)
    expect(page.locator("#live .js-plotly-plot svg.main-svg").first).to_be_visible()
    assert _last_actor(stack) == "airflow:admin"
    open_tab(page, stack, f"verdict?run={quote(run_id)}")
    promoted = re.search(r"night:\d+", page.get_by_role("heading", level=1).inner_text())
    assert promoted
    expect(page.get_by_text("✓ pass").first).to_be_visible()
    pictures = page.locator(".case img")
    pictures.first.scroll_into_view_if_needed()
    expect(pictures.first).to_have_js_property("complete", True)
    assert pictures.first.evaluate("image => image.naturalWidth") > 0
    open_tab(page, stack, "?model=night")
    expect(page.get_by_role("heading", name=promoted.group())).to_be_visible()
    page.get_by_label(re.compile("its place back")).fill("shaft cut off on wide pictures")
    page.get_by_role("button", name=re.compile("Roll back to")).click()
    expect(page.get_by_role("status")).to_contain_text("The rollback was started")
    run = stack.until(lambda: stack.airflow.runs("rollback_champion"), bool)[0]
    assert (run["triggering_user_name"], run["conf"]["reason"]) == ("anna", "shaft cut off on wide pictures")
    assert stack.wait("rollback_champion", run["dag_run_id"]) == "success"
    open_tab(page, stack, "?model=night")
    expect(page.get_by_role("heading", name=promoted.group())).to_have_count(0)
    expect(page.get_by_text("Put back by airflow:anna: shaft cut off on wide pictures")).to_be_visible()


def _last_actor(stack: Stack) -> str | None:
    from femur_tasks.registry.tables import Promotion

    with stack.registry.reading() as session:
        last = select(Promotion.actor).where(Promotion.model == "night").order_by(Promotion.id.desc())
        return session.scalars(last.limit(1)).first()


def _state(stack: Stack, run_id: str) -> Any:
    from femur_tasks.registry.tables import Run

    with stack.registry.reading() as session:
        run = session.get(Run, run_id)
        return run and run.state


def test_viewer_is_refused_what_an_operator_may(stack: Stack, first_night: str, page: Page) -> None:
    log_in(page, stack, "bert")
    open_tab(page, stack, "?model=night")
    expect(page.get_by_role("button", name=re.compile("Roll back"))).to_have_count(0)
    code = page.evaluate(
        "fetch('rollback', {method: 'POST', body: new URLSearchParams({model: 'night', reason: 'because'})})"
        ".then(answer => answer.status)"
    )
    assert code == 403
