"""The report of an ingest: what the page shows, whatever came of it."""

from __future__ import annotations

import base64
import io
import math
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from PIL import Image

from femur_tasks.dataset.drift import DriftRow
from femur_tasks.dataset.problems import Problem
from femur_tasks.evaluation.overlays import TRUTH_RGB
from femur_tasks.reports import ingest
from femur_tasks.reports.histograms import histogram
from femur_tasks.reports.ingest import groups, headline
from femur_tasks.reports.ingest_facts import CaseCard, IngestReport, Pair, choose_cards
from femur_tasks.reports.sheets import card_sheets, pair_sheets
from tests.pages import Page, assert_accessible, assert_self_contained, text_of

STARTED = datetime(2026, 3, 3, 2, 0, tzinfo=UTC)
DIGEST = "9f3c2a71b0de" + "0" * 52
SIZE_MISMATCH = Problem("size_mismatch", "B", "mask 5 x 4", "one size")
ONE_FEMUR = Problem("one_femur", "A", "one part", "two parts")
LIFTED = Problem("burned_in", "C", "text", "no text", allowed=True)


def report(state: str = "ingested", **changed: Any) -> IngestReport:
    facts = {
        "dataset": "hip",
        "source": "incoming/hip/export.zip",
        "state": state,
        "size": 256,
        "started_at": STARTED,
        "finished_at": STARTED + timedelta(minutes=13),
        "digest": DIGEST,
        "counts": {"train": 3, "val": 1, "test": 1},
        "cases_found": 6,
    }
    return IngestReport(**{**facts, **changed})


def card(case_id: str, *problems: Problem, split: str = "train", height: int = 64) -> CaseCard:
    mask = np.zeros((height, 64), np.bool_)
    mask[8:40, 8:40] = True
    return CaseCard(case_id, split, case_id, np.full((height, 64), 90, np.uint8), mask, problems)


def render(found: IngestReport) -> str:
    return ingest.render(found, list(card_sheets(found.cards)))


def full_report() -> IngestReport:
    cards = (card("A", ONE_FEMUR), card("B", SIZE_MISMATCH, split="val"), card("C"), card("D", split="test", height=32))
    values = {"intensity_mean": [1.0, 2.0, 3.0], "height_px": [64.0] * 3, "spacing_y_mm": [], "odd_one": [math.nan]}
    return report(
        "refused",
        layout="coco",
        classes={0: "background", 1: "femur"},
        femur_class="femur (1)",
        allowed=("burned_in",),
        problems=(ONE_FEMUR, SIZE_MISMATCH, LIFTED),
        features={"train": values, "val": values, "test": {}},
        drift=(
            DriftRow("all", "intensity_mean", 1.234, 0.5, 1e-6, 40, 50, "large"),
            DriftRow("train", "intensity_mean", 0.15, 0.2, 1e-3, 20, 30, "some"),
            DriftRow("all", "height_px", 0.0, 0.0, 1.0, 40, 50, "none"),
            DriftRow("all", "spacing_y_mm", None, None, None, 3, 50, None),
        ),
        drift_against="hip@41ab9c0de112",
        cards=cards,
        pairs=(Pair(cards[0], cards[3], 0.9876),),
        versions={"numpy": "2.4"},
    )


@pytest.fixture(scope="module")
def full_page() -> str:
    return render(full_report())


def test_page_is_well_formed_self_contained_and_accessible(full_page: str) -> None:
    parsed = Page(full_page)
    assert parsed.open == []
    assert [tag for tag, _ in parsed.tags].count("h1") == 1
    assert "data:image/jpeg;base64," in full_page
    assert_self_contained(full_page)
    assert_accessible(full_page)
    assert full_page.count("Research use, not for diagnosis.") == 2


@pytest.mark.parametrize(
    ("state", "problems", "expected"),
    [
        ("ingested", (), "hip@9f3c2a71b0de is ingested with 5 cases: no problems"),
        ("ingested", (ONE_FEMUR,), "hip@9f3c2a71b0de is ingested with 5 cases: 1 warning"),
        ("ingested", (ONE_FEMUR, LIFTED), "hip@9f3c2a71b0de is ingested with 5 cases: 1 lifted error and 1 warning"),
        ("known", (), "Nothing new: hip@9f3c2a71b0de holds these 5 cases already: no problems"),
        ("refused", (SIZE_MISMATCH,) * 2, "The data for hip is refused: 2 errors"),
        (
            "refused",
            (ONE_FEMUR, LIFTED, SIZE_MISMATCH, ONE_FEMUR),
            "The data for hip is refused: 1 error, 1 lifted error and 2 warnings",
        ),
        ("dry run", (SIZE_MISMATCH,), "The data for hip would be refused: 1 error"),
        ("dry run", (LIFTED,), "The data for hip would be ingested with 5 cases: 1 lifted error"),
    ],
)
def test_headline_says_what_came_of_it_and_how_much_is_wrong(
    state: str, problems: tuple[Problem, ...], expected: str
) -> None:
    assert headline(report(state, problems=problems)) == expected


def test_facts_of_every_section_are_shown(full_page: str) -> None:
    text = text_of(full_page)
    for expected in (
        "3 March 2026, 02:00 to 02:13 UTC.",
        "classes 0 background, 1 femur taken for femur femur (1)",
        "cases found 6 cases taken 3 train, 1 val, 1 test lifted by hand burned_in",
        "error size_mismatch × 1 Export mask and picture at one size, or leave the case out with --allow "  # noqa: RUF001
        "size_mismatch. mask 5 x 4 one size B",
        "1 A train D test 0.988",
        "4 of 6 cases are shown.",
        "Against hip@41ab9c0de112.",
        "Mean grey value all 40 50 1.23 0.50 1e-06 large train 20 30 0.15 0.20 0.001 some",
        "Height, px all 40 50 0.00 0.00 1 none",
        "Distance of rows, mm all 3 50 – – – too few cases",  # noqa: RUF001
        "numpy 2.4",
    ):
        assert expected in text


def test_errors_come_before_lifted_ones_and_warnings(full_page: str) -> None:
    words = re.findall(r'<span class="tag (\w+)">([^<]+)</span> <code>', full_page)
    assert words == [("bad", "error"), ("calm", "lifted error"), ("warn", "warning")]


def test_a_broken_archive_leaves_a_page_of_what_is_known() -> None:
    broken = Problem("broken_archive", "export.zip", "its end is missing", "a whole archive")
    page = render(report("refused", digest=None, counts={}, cases_found=0, problems=(broken,)))
    text = text_of(page)
    assert "cases found 0" in text
    assert "Pack or download it again. its end is missing a whole archive export.zip" in text
    for absent in ("<img", "<svg", "digest", "cases taken", "Pairs that look alike", 'id="drift"', 'id="cases"'):
        assert absent not in page
    assert Page(page).open == []


def test_an_ingest_without_problems_says_so() -> None:
    text = text_of(render(report()))
    assert "Problems No problems." in text


def test_problems_are_grouped_and_the_first_fifty_of_a_code_are_listed() -> None:
    many = [Problem("many_parts", f"HIP_{n:03d}", f"{n % 2} parts", "one") for n in range(450)]
    few = [Problem("mask_values", f"HIP_{n:03d}", "3 values", "2 values") for n in range(50)]
    errors, warnings = groups([*many, *few])
    assert (errors.word, errors.count, errors.more, len(errors.rows)) == ("error", 50, 0, 1)
    assert (warnings.word, warnings.count, warnings.more) == ("warning", 450, 400)
    assert [row[0] for row in warnings.rows] == ["0 parts", "1 parts"]
    assert warnings.rows[1][2].split(", ") == [f"HIP_{n:03d}" for n in range(1, 50, 2)]
    page = render(report(problems=(*many, *few)))
    assert "and 400 more" in page
    assert len(page) < 50_000


def test_a_boundless_text_is_cut() -> None:
    endless = Problem("unreadable", "n" * 10**6, "f" * 10**6, "e" * 10**6)
    page = render(report(source="s" * 10**6, classes={1: "c" * 10**6}, problems=(endless,)))
    assert len(page) < 20_000


@pytest.mark.parametrize("name", ["<script>alert('x')</script>", "a\udcffb", "$x^{$", "\u202e\x07", ""])
def test_names_that_are_no_plain_text_stay_text(name: str) -> None:
    problem = Problem("unreadable", name, name, name)
    shown = card(name, problem, split=name)
    page = render(
        replace(
            full_report(),
            dataset=name,
            source=name,
            layout=name,
            classes={1: name},
            femur_class=name,
            problems=(problem,),
            cards=(shown, card(name, split=name)),
            pairs=(Pair(shown, shown, 1.0),),
            features={},
            drift_against=name,
            versions={name: name},
        )
    )
    assert Page(page).open == []
    assert "<script" not in page
    assert page.encode()


def test_codes_in_what_to_do_are_set_as_code() -> None:
    page = render(report(problems=(Problem("drift", "hip", "f", "e"),)))
    assert "with <code>femur dataset diff</code>: scores" in page


# pictures


def opened(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)))


def test_cases_with_problems_are_a_sheet_of_their_own_before_those_of_each_split() -> None:
    sheets = list(card_sheets(full_report().cards))
    assert [sheet.title for sheet in sheets] == [
        "Cases with problems",
        "Cases of train without a problem",
        "Cases of test without a problem",
    ]
    assert sheets[0].alt.endswith(": A one_femur; B size_mismatch")
    assert sheets[1].alt.endswith(": C")


def test_a_sheet_shows_the_mask_as_a_blue_outline_alone() -> None:
    (sheet,) = card_sheets([card("A")])
    # a panel of 256 px from 64 px, 8 px from the sheet's edge: the mask goes from 8 + 4 * 8 to 8 + 4 * 40
    picture = opened(sheet.picture).astype(int)
    assert np.abs(picture[42, 80] - TRUTH_RGB).max() < 40
    assert np.abs(picture[100, 100] - 90).max() < 8
    assert np.abs(picture[20, 20] - 90).max() < 8


def test_a_sheet_has_sixteen_cards_at_most() -> None:
    sheets = list(card_sheets([card(f"{n:02d}") for n in range(17)]))
    assert [sheet.title[-12:] for sheet in sheets] == ["sheet 1 of 2", "sheet 2 of 2"]
    assert "; 15" in sheets[0].alt
    assert sheets[1].alt.endswith(": 16")


def test_a_pair_lies_side_by_side_under_its_number() -> None:
    pairs = [Pair(card("A"), card("B"), 1.0), Pair(card("C"), card("D"), 0.9)]
    (sheet,) = pair_sheets(pairs)
    assert sheet.alt.endswith(": 1: A; 1: B; 2: C; 2: D")
    height, width, _ = opened(sheet.picture).shape
    assert width > 3 * height


def test_pairs_beyond_two_dozen_are_counted() -> None:
    pairs = tuple(Pair(card(f"{n:02d}"), card("x"), 1.0) for n in range(30))
    text = text_of(render(report(pairs=pairs)))
    assert "24 23 train x train 1.000 and 6 more" in text


def test_a_page_of_sixty_noisy_cards_is_below_three_megabytes() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(120, 12, (60, 256, 256)).clip(0, 255).astype(np.uint8)
    cards = tuple(CaseCard(f"{n}", "train", f"{n}", grey, grey > 200) for n, grey in enumerate(noise))
    page = render(report(cards=cards))
    assert len(page) < 3_000_000
    jpegs = [base64.b64decode(found) for found in re.findall(r"base64,([^\"]+)", page)]
    assert len(jpegs) == 4


# charts


def test_features_are_drawn_with_a_line_for_each_split_that_has_the_feature(full_page: str) -> None:
    titles = re.findall(r"<figcaption>([^<]+)</figcaption>\n<svg", full_page)
    assert titles == ["Mean grey value", "Height, px"]  # neither the empty nor the infinite one
    features = full_page[full_page.index('id="features"') : full_page.index('id="drift"')]
    assert re.findall(r"</svg>(\w+)</span>", features) == ["train", "val"]  # test has no value
    panels = re.findall(r'<figure class="panel">.*?</figure>', features, flags=re.DOTALL)
    assert [re.findall(r'class="line-(\d)"', panel) for panel in panels] == [["0", "1"], ["0", "1"]]


def test_lines_differ_in_colour_and_in_dash(full_page: str) -> None:
    rules = re.findall(r"\.line-\d \{ ([^}]+) \}", full_page)
    assert len({rule.partition(";")[0] for rule in rules}) == len({rule.partition(";")[2] for rule in rules}) == 3


def test_histogram_is_the_share_of_each_bin_of_all_splits() -> None:
    # 8 values of two splits: at least 5 bins, from 0 to 10 in steps of 2
    found = histogram("grey", {"train": [0, 1, 3, 10], "val": [5, 5, 5, 5]})
    assert (found.low, found.high, found.top_pct) == ("0", "10", "100")
    # half of train in the first bin: half of the height, which all of val reaches in the third
    assert found.lines["train"] == "M0 40V20.0H20.0V30.0H40.0V40.0H60.0V40.0H80.0V30.0H100.0V40"
    assert found.lines["val"] == "M0 40V40.0H20.0V40.0H40.0V0.0H60.0V40.0H80.0V40.0H100.0V40"


def test_constant_feature_has_a_histogram() -> None:
    assert histogram("height", {"train": [64.0] * 3}).top_pct == "100"


def test_one_panel_for_one_feature_and_none_for_none() -> None:
    page = render(report(features={"train": {"brand_new": [1.0]}, "val": {}}))
    assert page.count("<figcaption>brand new</figcaption>") == page.count('class="panel"') == 1
    assert 'id="features"' not in render(report(features={"train": {"height_px": []}}))


def test_same_facts_give_the_same_bytes(full_page: str) -> None:
    assert render(full_report()) == full_page


def test_rendering_loads_neither_keras_nor_the_registry_database() -> None:
    code = (
        "import sys, femur_tasks.reports.ingest; "
        "sys.exit(', '.join({'keras', 'tensorflow', 'sqlalchemy', 'matplotlib', 'airflow'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr


# which cases are shown


def test_every_case_is_chosen_where_there_is_room() -> None:
    splits = {"A": "train", "B": "test", "C": "val"}
    assert choose_cards(splits, []) == ["A", "C", "B"]
    assert choose_cards({}, [ONE_FEMUR]) == []


def test_errors_are_chosen_before_warnings_and_these_before_the_rest() -> None:
    splits = dict.fromkeys("ABCD", "train")
    assert choose_cards(splits, [ONE_FEMUR, SIZE_MISMATCH, LIFTED], limit=2) == ["B", "A"]
    assert choose_cards(splits, [ONE_FEMUR, SIZE_MISMATCH]) == ["B", "A", "C", "D"]


def test_a_common_problem_hides_no_rare_one() -> None:
    common = [Problem("one_femur", f"{n:03d}", "", "") for n in range(100)]
    rare = Problem("mirrored", "999", "", "")
    splits = {problem.case_id: "train" for problem in (*common, rare)}
    assert choose_cards(splits, [*common, rare], limit=3) == ["000", "999", "001"]


def test_the_rest_is_an_even_sample_of_each_split() -> None:
    splits = {
        f"{split}{n:02d}": split for split, count in (("train", 21), ("val", 10), ("test", 2)) for n in range(count)
    }
    # 12 for three splits: 4 each, but test has 2, so that the others share 10
    assert choose_cards(splits, [], limit=12) == [
        *("train00", "train05", "train10", "train15", "train20"),
        *("val00", "val02", "val04", "val07", "val09"),
        *("test00", "test01"),
    ]


def test_problems_of_the_source_and_of_lost_cases_are_passed_over() -> None:
    lost = Problem("unreadable", "gone", "", "")
    assert choose_cards({"A": "train"}, [lost, replace(lost, case_id="export.zip")]) == ["A"]


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 48])
def test_no_more_cases_are_chosen_than_asked_for_and_none_twice(limit: int) -> None:
    splits = {f"{n}": ("train", "val", "test", "")[n % 4] for n in range(60)}
    problems = [Problem("one_femur", f"{n % 20}", "", "") for n in range(40)]
    chosen = choose_cards(splits, problems, limit)
    assert len(chosen) == len(set(chosen)) == limit
