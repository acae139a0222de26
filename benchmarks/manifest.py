"""A version of many cases, metadata only: judged, digested, published and recorded, from 1,000 to 100,000 cases.

    python benchmarks/manifest.py

Each size runs in a process of its own, on SQLite and a store in memory. The rival is the smallest size: the last line
is how much longer a case takes at 100,000 cases than at 1,000; 1 is linear.
"""

from __future__ import annotations

import hashlib
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def publish(cases: int) -> None:
    """Print the seconds and the highest memory of one version of so many cases."""
    from femur_tasks.dataset.acceptance import Known, accept
    from femur_tasks.dataset.cases import CaseFacts
    from femur_tasks.dataset.work import Plan
    from femur_tasks.registry.database import Registry, migrate
    from femur_tasks.steps.publish import manifest_of
    from femur_tasks.steps.recording import known, record_version
    from femur_tasks.storage import MemoryStore

    now = datetime.now(UTC)
    facts = [
        CaseFacts(
            case_id=f"HIP_{n:06d}", patient=f"p-{n // 2:012x}", split=None, height_px=2874, width_px=2860,
            spacing_mm=(0.143, 0.143), mirrored=False, image_sha256=_digest(f"i{n}"), mask_sha256=_digest(f"m{n}"),
            window=None, intensity_mean=100.0, intensity_sd=30.0, femur_area_pct=7.0, femur_x_pct=50.0,
            femur_y_pct=60.0, labels=(), raw_image="", raw_mask="",
        )
        for n in range(cases)
    ]  # fmt: skip
    plan = Plan(
        dataset="femur", source="benchmark", folder="", size=256, layout="reference", femur_class="1", femur=(1,),
        assumed=False, patient_pattern="", classes=None, cases={}, chunks=(), problems=(), allow=(),
        standing={"model": "femur", "budget": "nightly", "femur_class": None, "patient_pattern": None}, started_at=now,
    )  # fmt: skip
    with TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'registry.db'}"
        migrate(url)
        registry, store = Registry(url), MemoryStore()
        started = time.perf_counter()
        with registry.reading() as session:
            before = known(session, "femur")
        accepted = accept("femur", facts, (), before or Known(), frozenset(), {})
        manifest = manifest_of(plan, accepted)
        key = store.put(manifest.to_json(), "manifests")
        with registry.writing() as session:
            record_version(session, plan, manifest, key, accepted, now)
        seconds = time.perf_counter() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    print(f"{'cases':>10}{'seconds':>10}{'us a case':>12}{'peak MB':>10}")
    each = {}
    for cases in SIZES:
        done = subprocess.run(  # noqa: S603 - this very script
            [sys.executable, __file__, str(cases)], capture_output=True, text=True, check=True
        )
        seconds, mb = map(float, done.stdout.split())
        each[cases] = seconds / cases
        print(f"{cases:10,}{seconds:10.2f}{1e6 * each[cases]:12.0f}{mb:10.0f}")
    print(f"ratio: {each[SIZES[-1]] / each[SIZES[0]]:.2f}")


if __name__ == "__main__":
    publish(int(sys.argv[1])) if len(sys.argv) > 1 else main()
