"""Fuzzing of every annotation file: whatever it holds, only problems or Faulty may come out.

Run it as `python tests/fuzz/fuzz_layouts.py -max_total_time=60 [corpus]`; what it finds becomes a test of
tests/unit/test_layouts.py.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["femur_tasks.dataset", "yaml", "json"]):
    from femur_tasks.dataset.classes import femur_numbers
    from femur_tasks.dataset.layouts import LAYOUTS, Shapes, find_cases
    from femur_tasks.dataset.masks import rasterised
    from femur_tasks.dataset.naming import Namer
    from femur_tasks.dataset.problems import CODES, Faulty

NAMER = Namer(b"fuzz", hide=True)
COCO = {
    "images": [{"id": 7, "file_name": "a.png", "height": 8, "width": 8}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 6, 1, 6, 6]]},
        {"id": 2, "image_id": 7, "category_id": 1, "segmentation": {"size": [8, 8], "counts": [0, 8, 56]}},
        {"id": 3, "image_id": 7, "category_id": 1, "segmentation": {"size": [8, 8], "counts": "8h1"}},
    ],
    "categories": [{"id": 0, "name": "hip"}, {"id": 1, "name": "femur", "supercategory": "hip"}],
}
NNUNET = {"channel_names": {"0": "XR"}, "labels": {"background": 0, "femur": 1}, "file_ending": ".png"}
DECATHLON = {"labels": {"1": "femur"}, "training": [{"image": "a.png", "label": "b.png"}], "test": ["b.png"]}
# the file that is fuzzed, a valid content of it, and the files beside it
TARGETS: list[tuple[str, str, dict[str, str]]] = [
    ("train/_annotations.coco.json", json.dumps(COCO), {"train/a.png": ""}),
    ("data.yaml", "names: [femur]\nval: x\n", {"train/images/a.png": "", "train/labels/a.txt": "0 0 0 1 0 1 1"}),
    ("train/labels/a.txt", "0 0 0 1 0 1 1\n", {"train/images/a.png": "", "data.yaml": "names: [femur, pubis]"}),
    ("_classes.csv", "Pixel Value, Class\n1, femur\n", {"images/a.png": "", "labels/a.png": ""}),
    ("dataset.json", json.dumps(NNUNET), {"imagesTr/a_0000.png": "", "labelsTr/a.png": "", "imagesTs/b_0000.png": ""}),
    ("dataset.json", json.dumps(DECATHLON), {"a.png": "", "b.png": ""}),
]


def sources(folder: Path) -> list[Path]:
    """One source a target, with everything in it but the file that is fuzzed."""
    made = []
    for number, (name, content, beside) in enumerate(TARGETS):
        made.append(folder / f"{number}")
        for each, text in {**beside, name: content}.items():
            path = made[-1] / each
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return made


def planted(content: str, data: bytes) -> bytes:
    """The fuzzer's bytes as the whole file, or behind a byte of 128 and more in the place of one word of it."""
    if not data or data[0] < 128:
        return data
    words = [found.span() for found in re.finditer(r"[^\s\[\]{}:,]+|\[[^\[\]]*\]|\{[^{}]*\}", content)]
    start, end = words[(data[0] - 128) % len(words)]
    return content[:start].encode() + data[1:] + content[end:].encode()


def check(source: Path) -> None:
    """Read a source as far as ingesting does before it looks at pixels."""
    for asked in (None, *LAYOUTS):
        layout = find_cases(source, NAMER, asked)
        if not layout.cases and not layout.problems:
            raise AssertionError("Expected cases or problems. Received: neither.")
        for problem in layout.problems:
            if problem.code not in CODES or not f"{problem.found}{problem.expected}".isprintable():
                raise AssertionError(f"Expected a printable problem. Received: {problem!r}.")
        try:
            femur = femur_numbers(layout.classes, None, None)
            for case in layout.cases:
                if isinstance(case.mask, Shapes):
                    rasterised(case.mask, 8, 8, femur)
        except Faulty:
            continue


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="femur-fuzz-") as temporary:
        folder = Path(temporary)
        made, corpus = sources(folder), folder / "corpus"
        corpus.mkdir()
        for number, (_, content, _) in enumerate(TARGETS):
            (corpus / f"{number}").write_bytes(bytes([number]) + content.encode())
            for place in range(0, 60, 3):
                (corpus / f"{number}-{place}").write_bytes(bytes([number, 128 + place]) + b"[1]")

        def one(data: bytes) -> None:
            number = data[0] % len(TARGETS) if data else 0
            name, content, _ = TARGETS[number]
            (made[number] / name).write_bytes(planted(content, data[1:]))
            check(made[number])

        atheris.Setup([*sys.argv, str(corpus)], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
