"""Names: what a file is called becomes a case and a patient, in clear only where that may be."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path

import pytest

from femur_tasks.dataset.naming import Name, Namer, compiled, is_dicom
from femur_tasks.errors import FemurError

KEY = b"k" * 32
HASH = "0af3b1c2d4e5f60718293a4b5c6d7e8f"


def p(text: str, key: bytes = KEY) -> str:
    """A pseudonym, worked out apart from the library."""
    return "p-" + hmac.digest(key, text.encode(), hashlib.sha256).hex()[:12]


@pytest.mark.parametrize(
    ("stem", "case_id", "variant"),
    [
        (f"HIP_0001_png.rf.{HASH}", "HIP_0001", "0af3b1c2"),
        (f"HIP_0001_jpeg.rf.{HASH}", "HIP_0001", "0af3b1c2"),
        (f"HIP_0001_tif.rf.{HASH}", "HIP_0001", "0af3b1c2"),
        (f"HIP_0001_dcm.rf.{HASH}", "HIP_0001", "0af3b1c2"),
        (f"HIP_0001.rf.{HASH}", "HIP_0001", "0af3b1c2"),
        ("HIP_0001_jpg.rf.AbC45678", "HIP_0001", "AbC45678"),
        ("HIP_0001_png.rf.1234567", "HIP_0001_png.rf.1234567", ""),
        ("HIP_0001_png", "HIP_0001_png", ""),
        (f".rf.{HASH}", f".rf.{HASH}", ""),
        ("HIP 1 (2)", "HIP 1 (2)", ""),
    ],
    ids=["png", "jpeg", "tif", "dcm", "no kind", "letters", "hash too short", "no hash", "nothing else", "plain"],
)
def test_exported_name_is_the_case_and_its_hash_the_variant(stem: str, case_id: str, variant: str) -> None:
    assert Namer(KEY).named(stem) == Name(case_id, case_id, variant)


@pytest.mark.parametrize(
    ("pattern", "stem", "case_id", "patient"),
    [
        (r"^(?P<patient>P\d+)_", "P12_left", f"{p('P12')}_left", p("P12")),
        (r"^(P\d+)_", "P12_left", f"{p('P12')}_left", p("P12")),
        (r"(\d{4})-(?P<patient>[a-z]+)", "ap-2026-doe-1", f"ap-2026-{p('doe')}-1", p("doe")),
        (r"_(doe|roe)", "pelvis_roe_2", f"pelvis_{p('roe')}_2", p("roe")),
        (r"^(P\d+)_", "Q12_left", "Q12_left", "Q12_left"),
        (r"^(P\d+)?_", "_left", "_left", "_left"),
        (r"^(P\d+)", f"P12_png.rf.{HASH}", p("P12"), p("P12")),
    ],
    ids=["named", "first", "named second", "in the middle", "no match", "group took no part", "exported"],
)
def test_patient_is_found_by_the_pattern_and_stands_as_a_pseudonym(
    pattern: str, stem: str, case_id: str, patient: str
) -> None:
    found = Namer(KEY, compiled(pattern)).named(stem)
    assert (found.case_id, found.patient) == (case_id, patient)


def test_pictures_of_one_patient_share_the_patient_alone() -> None:
    namer = Namer(KEY, compiled(r"^(P\d+)_"))
    left, right = namer.named("P1_a"), namer.named("P1_b")
    assert (left.patient == right.patient, left.case_id == right.case_id) == (True, False)


def test_hidden_names_show_nothing_of_the_file_name() -> None:
    assert Namer(KEY, hide=True).named("Doe^Jane") == Name(p("Doe^Jane"), p("Doe^Jane"))
    of_patient = Namer(KEY, compiled("^(Doe|Roe)"), hide=True).named("Doe_pelvis")
    assert of_patient == Name(p(f"{p('Doe')}_pelvis"), p("Doe"))


def test_hidden_name_that_is_a_pseudonym_already_comes_back_as_itself() -> None:
    once = Namer(KEY, hide=True).named("Doe^Jane").case_id
    assert Namer(KEY, hide=True).named(once) == Name(once, once)


def test_pseudonym_depends_on_the_key_and_on_nothing_else() -> None:
    namer = Namer(KEY)
    assert namer.pseudonym("P1") == namer.pseudonym(" P1\n") == p("P1")
    assert namer.pseudonym("P2") == p("P2")
    assert Namer(b"other" * 8).pseudonym("P1") == p("P1", b"other" * 8)
    assert len({p("P1"), p("P2"), p("P1", b"other" * 8)}) == 3


@pytest.mark.parametrize(
    ("text", "stays"),
    [("p-0123456789ab", True), ("p-0123456789AB", False), ("p-0123456789abc", False), ("x p-0123456789ab", False)],
    ids=["pseudonym", "capitals", "longer", "within"],
)
def test_pseudonym_of_a_pseudonym_is_itself(text: str, stays: bool) -> None:
    assert Namer(KEY).pseudonym(text) == (text if stays else p(text))


@pytest.mark.parametrize("pattern", [None, ""], ids=["none", "empty"])
def test_no_pattern_is_none(pattern: str | None) -> None:
    assert compiled(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(P", "Expected a regular expression. Received: '(P', missing ), unterminated subpattern at position 0."),
        (r"^P\d+", r"Expected a pattern with a group around the patient. Received: '^P\\d+'."),
        ("(?:P)", "Expected a pattern with a group around the patient. Received: '(?:P)'."),
    ],
    ids=["no expression", "no group", "group that keeps nothing"],
)
def test_pattern_that_finds_no_patient_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(FemurError, match=f"^{re.escape(said)}"):
        compiled(pattern)


@pytest.mark.parametrize(
    ("data", "expected"),
    [(bytes(128) + b"DICM", True), (b"x" * 128 + b"DICM...", True), (bytes(128) + b"DIC", False), (b"DICM", False)],
    ids=["mark", "any preamble", "cut off", "no preamble"],
)
def test_dicom_is_told_by_its_mark(tmp_path: Path, data: bytes, expected: bool) -> None:
    (tmp_path / "file").write_bytes(data)
    assert is_dicom(tmp_path / "file") is expected


def test_file_that_is_called_dicom_may_hide_a_name_without_the_mark(tmp_path: Path) -> None:
    (tmp_path / "Doe^Jane.DCM").write_bytes(b"damaged")
    assert is_dicom(tmp_path / "Doe^Jane.DCM")


def test_what_cannot_be_opened_is_no_dicom(tmp_path: Path) -> None:
    assert not is_dicom(tmp_path)
    assert not is_dicom(tmp_path / "none")
