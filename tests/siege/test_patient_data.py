"""No patient's name leaves the files it came in: every byte that an ingest leaves behind is searched for it."""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import json
import re
import struct
import subprocess
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from pydantic import SecretStr
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select

from femur_tasks.parameters import IngestParameters
from femur_tasks.registry.database import Registry, migrate
from femur_tasks.registry.tables import DatasetCase
from femur_tasks.stack.control import down, up
from femur_tasks.steps.context import Context
from femur_tasks.steps.ingest import ingest
from femur_tasks.storage import open_store
from tests.conftest import settings_of
from tests.processes import environment, femur
from tests.radiographs import Array, grey_hw, labels_hw, packed

NAME, ID, BORN = "PLANTEDNAME^JOHN", "PLANTED-4711", "19470111"
NEEDLES = ("PLANTEDNAME", ID, BORN)
PATTERN = r"^(PLANTED-\d+)_"
SPLITS = {"A": "train", "B": "train", "C": "valid", "D": "test"}


# ---- files with a name in every place


def dicom(pixels: Array, patient: str = ID) -> bytes:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.ImplementationVersionName = ID
    made.SOPClassUID, made.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    made.add_new("PixelData", "OB", pixels.tobytes())
    made.PatientName, made.PatientID, made.PatientBirthDate = NAME, patient, BORN
    made.OtherPatientIDs, made.PatientComments, made.ImageComments = [ID, NAME], f"of {NAME}", NAME
    made.StudyDescription, made.AccessionNumber, made.ReferringPhysicianName = NAME, ID, NAME
    made.private_block(0x0009, "PLANTEDNAME", create=True).add_new(1, "LO", NAME)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcmwrite(buffer, made, enforce_file_format=True)
    return b"PLANTEDNAME".ljust(128, b"\0") + buffer.getvalue()[128:]


def nifti(pixels_hw: Array) -> bytes:
    image = nib.Nifti1Image(pixels_hw.T, np.eye(4))
    image.header["descrip"], image.header["db_name"] = NAME.encode(), ID.encode()
    image.header["aux_file"], image.header["intent_name"] = NAME.encode(), ID.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", NAME.encode()))
    buffer = io.BytesIO()
    with gzip.GzipFile(f"{ID}.nii", "wb", fileobj=buffer) as file:
        file.write(bytes(image.to_bytes()) + NAME.encode())
    return buffer.getvalue()


def raster(pixels_hw: Array, kind: str) -> bytes:
    exif, info = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x010E], exif[0x9286] = NAME, NAME.encode("utf-16le")
    info.add_text("Patient", NAME)
    info.add_text("Packed", NAME, zip=True)
    info.add_itxt("Intern", ID, zip=True)
    options: dict[str, dict[str, Any]] = {
        "PNG": {"pnginfo": info, "exif": exif},
        "JPEG": {"comment": NAME.encode(), "exif": exif, "xmp": NAME.encode(), "quality": 95},
        "TIFF": {"description": NAME, "software": ID, "artist": NAME, "exif": exif},
    }
    buffer = io.BytesIO()
    Image.fromarray(pixels_hw).save(buffer, kind, **options[kind])
    return buffer.getvalue() + NAME.encode()


PICTURES: Mapping[str, tuple[str, Callable[[Array], bytes]]] = {
    "A": ("nii.gz", nifti),
    "B": ("png", lambda pixels: raster(pixels, "PNG")),
    "C": ("jpg", lambda pixels: raster(pixels, "JPEG")),
    "D": ("tif", lambda pixels: raster(pixels, "TIFF")),
}


def write(folder: Path, split: str, stem: str, suffix: str, image: bytes, seed: int, mask: bytes | None = None) -> None:
    for half, name, data in (
        ("imgs", f"{stem}.{suffix}", image),
        ("targets", f"{stem}.png", raster(labels_hw(seed), "PNG") if mask is None else mask),
    ):
        (folder / split / half).mkdir(parents=True, exist_ok=True)
        if data:
            (folder / split / half / name).write_bytes(data)
    (folder / "_classes.csv").write_text("Pixel Value, Class\n0, background\n1, femur\n2, ilium\n")


def write_dicom(folder: Path, patients: Mapping[str, str] | None = None) -> Path:
    """DICOM files called as their patients are."""
    for seed, (key, split) in enumerate(SPLITS.items(), 10):
        patient = (patients or {}).get(key, f"{ID}-{key}")
        write(folder, split, f"{NAME} {ID} {key}", "dcm", dicom(grey_hw(seed), patient), seed)
    return folder


def write_others(folder: Path) -> Path:
    """NIfTI, PNG, JPEG and TIFF, whose file names begin with the patient's number."""
    for seed, (key, split) in enumerate(SPLITS.items(), 30):
        suffix, made = PICTURES[key]
        mask = nifti(labels_hw(seed)) if key == "A" else None
        write(folder, split, f"{ID}{seed}_{key}", suffix, made(grey_hw(seed)), seed, b"" if mask else None)
        if mask:
            (folder / split / "targets" / f"{ID}{seed}_{key}.nii.gz").write_bytes(mask)
    return folder


def one(folder: Path, key: str, half: str) -> Path:
    (found,) = (path for path in (folder / SPLITS[key] / half).iterdir() if path.name.split(".")[0].endswith(key))
    return found


# ---- sources, good and refused


def zipped(folder: Path) -> Path:
    return packed(write_dicom(folder / NAME), folder / "export.zip", top=NAME)


def broken_dicom(folder: Path) -> Path:
    write_dicom(folder)
    one(folder, "A", "imgs").write_bytes(dicom(grey_hw(1))[:-100])
    one(folder, "B", "imgs").write_bytes(dicom(grey_hw(1))[:200])
    one(folder, "C", "imgs").write_bytes(dicom(grey_hw(1)).replace(b"MONOCHROME2", NAME[:11].encode()))
    damaged = dicom(grey_hw(1)).replace(b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00DS\x02\x00")
    one(folder, "D", "imgs").write_bytes(damaged)
    return folder


def single_dicom_without_its_mark(folder: Path) -> Path:
    for seed, (key, split) in enumerate(SPLITS.items(), 50):
        write(folder, split, key, "png", raster(grey_hw(seed), "PNG"), seed)
    write(folder, "train", NAME, "dcm", dicom(grey_hw(60))[:130], 60)
    return folder


def missing_masks(folder: Path) -> Path:
    write_dicom(folder)
    one(folder, "A", "targets").unlink()
    one(folder, "B", "imgs").unlink()
    return folder


def duplicates(folder: Path) -> Path:
    write_dicom(folder)
    one(folder, "B", "imgs").write_bytes(dicom(grey_hw(10), f"{ID}-B"))  # the picture of A
    one(folder, "D", "imgs").write_bytes(dicom(grey_hw(10), f"{ID}-D"))
    write(folder, "valid", f"{NAME} {ID} A", "dcm", dicom(grey_hw(77), f"{ID}-E"), 77)  # the name of A
    return folder


def broken_others(folder: Path) -> Path:
    write_others(folder)
    for key, cut in {"A": -40, "B": -300, "C": -400, "D": -300}.items():
        path = one(folder, key, "imgs")
        path.write_bytes(path.read_bytes()[:cut])
    one(folder, "A", "targets").unlink()
    return folder


def no_layout(folder: Path) -> Path:
    made = write_dicom(folder / "source")
    return packed(made / "train" / "imgs", folder / "export.zip", top=f"{NAME}/{ID}")


def damaged_zip(folder: Path) -> Path:
    archive = zipped(folder)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    return archive


def hostile_zip(folder: Path) -> Path:
    archive = zipped(folder)
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr(f"../{NAME}", NAME)
    return archive


def coco(folder: Path) -> Path:
    """Annotations that name patients where a file, a class or a number should be."""
    write_dicom(folder)
    listed = [{"id": 1, "file_name": f"{NAME}.png"}, {"id": NAME, "file_name": "x"}, {"id": 3, "file_name": f"/{NAME}"}]
    drawn = [{"id": 1, "image_id": NAME, "category_id": 1, "segmentation": NAME}, {"id": 2, "image_id": 1, NAME: ID}]
    tree = {"images": listed, "annotations": drawn, "categories": [{"id": 1, "name": "femur"}], "info": NAME}
    (folder / "train" / "_annotations.coco.json").write_text(json.dumps(tree))
    (folder / "valid" / "_annotations.coco.json").write_text(json.dumps(tree)[:-30])
    return folder


@dataclass(frozen=True)
class Attempt:
    """A source and how it is ingested: expected problems are errors by their code, none where it is ingested."""

    make: Callable[[Path], Path]
    options: tuple[str, ...]
    expected: tuple[str, ...] = ()


ATTEMPTS: Mapping[str, Attempt] = {
    "dicom": Attempt(write_dicom, ("--json",)),
    "known dicom": Attempt(write_dicom, ()),
    "zip of dicom": Attempt(zipped, ("--name", "zip")),
    "other formats": Attempt(write_others, ("--name", "other", "--patient-pattern", PATTERN)),
    "broken dicom": Attempt(broken_dicom, ("--json",), ("unreadable",) * 4),
    "no mark of dicom": Attempt(single_dicom_without_its_mark, (), ("unreadable",)),
    "missing masks": Attempt(missing_masks, (), ("missing_partner",) * 2),
    "duplicates": Attempt(duplicates, ("--json",), ("duplicate_across_splits", "duplicate_case", "duplicate_pixels")),
    "broken others": Attempt(broken_others, ("--patient-pattern", PATTERN), ("missing_partner", *["unreadable"] * 3)),
    "no layout": Attempt(no_layout, (), ("unknown_layout",)),
    "damaged zip": Attempt(damaged_zip, (), ("broken_archive",)),
    "hostile zip": Attempt(hostile_zip, ("--json",), ("hostile_archive",)),
    "coco": Attempt(coco, ("--json",), ("missing_partner", *["bad_annotations"] * 5)),
}


@dataclass(frozen=True)
class Left:
    """Everything that is there after all attempts."""

    home: Path
    done: Mapping[str, subprocess.CompletedProcess[bytes]]
    registry: Registry
    objects: Mapping[str, bytes]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    sources, home = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("own") / "home"
    made = {name: attempt.make(sources / f"{n}") for n, (name, attempt) in enumerate(ATTEMPTS.items())}
    try:
        up(settings_of(home), only={"store"})
        migrate(settings_of(home).database_url)
        env = environment(home)

        def run(name: str) -> subprocess.CompletedProcess[bytes]:
            return femur(env, "--debug", "ingest", str(made[name]), "--size", "32", *ATTEMPTS[name].options)

        done = {"dicom": run("dicom")}
        with ThreadPoolExecutor(2) as pool:
            rest = [name for name in ATTEMPTS if name not in done]
            done |= dict(zip(rest, pool.map(run, rest), strict=True))
        store = open_store(settings_of(home))
        objects = {found.key: store.get(found.key) for found in store.list("")}
        yield Left(home, done, Registry(settings_of(home).database_url), objects)
    finally:
        down(settings_of(home))


# ---- looking for it


def written_as(text: str) -> Iterator[bytes]:
    """A text in lower case as UTF-8 and UTF-16, and as it stands in base64, wherever in it."""
    yield text.lower().encode()
    yield text.lower().encode("utf-16le")
    yield text.encode().hex().encode()
    for variant in (text, text.lower(), text.title()):
        for before in range(3):
            packed_text = base64.b64encode(bytes(before) + variant.encode())
            yield packed_text[-(-8 * before // 6) : len(packed_text) - 4].lower()


FORMS = {form for needle in NEEDLES for form in written_as(needle)}


def layers(data: bytes) -> Iterator[bytes]:
    """Bytes, and what is packed in them: gzip, zip, pictures in a page, and what pictures say of themselves."""
    yield data
    if data[:2] == b"\x1f\x8b":
        with suppress(OSError, EOFError):
            yield from layers(gzip.decompress(data))
    if data[:4] == b"PK\3\4":
        with suppress(zipfile.BadZipFile), zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield "\n".join(archive.namelist()).encode()
            for name in archive.namelist():
                yield from layers(archive.read(name))
    for picture in re.findall(rb"data:[a-z/+-]+;base64,([A-Za-z0-9+/=]+)", data):
        with suppress(binascii.Error):  # a page that the store has cut; its whole is there too
            yield from layers(base64.b64decode(picture))
    with suppress(OSError), Image.open(io.BytesIO(data)) as image:
        yield repr(image.info).encode() + repr(dict(image.getexif())).encode()


def holds(data: bytes) -> list[bytes]:
    lowered = [layer.lower() for layer in layers(data)]
    return [form for form in FORMS if any(form in layer for layer in lowered)]


@pytest.mark.parametrize("name", ATTEMPTS)
def test_search_finds_the_name_in_what_is_ingested(tmp_path: Path, name: str) -> None:
    source = ATTEMPTS[name].make(tmp_path / "source")
    files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
    assert any(holds(path.read_bytes()) for path in files)


@pytest.mark.parametrize(
    "data",
    [
        f"x {NAME.title()}".encode(),
        f"x{NAME}".encode("utf-16be"),
        base64.b64encode(f"x{NAME}y".encode()),
        base64.b64encode(f"xx{ID}yy".encode()),
        gzip.compress(NAME.encode()),
        b'<img src="data:image/png;base64,' + base64.b64encode(raster(grey_hw(1), "PNG")) + b'">',
        NAME.encode().hex().encode(),
    ],
    ids=["letters", "UTF-16", "base64", "base64 elsewhere", "gzip", "picture of a page", "hexadecimal"],
)
def test_search_finds_the_name_however_it_is_written(data: bytes) -> None:
    assert holds(data)


def test_search_finds_nothing_in_nothing() -> None:
    assert not holds(struct.pack("<9999I", *range(9999)))


# ---- nothing is found


@pytest.mark.parametrize("name", ATTEMPTS)
def test_every_attempt_ends_as_expected(left: Left, name: str) -> None:
    done, expected = left.done[name], ATTEMPTS[name].expected
    assert done.returncode == (2 if expected else 0), done.stderr.decode()
    if "--json" in ATTEMPTS[name].options:
        said = json.loads(done.stdout)
        assert sorted(found["code"] for found in said["problems"] if found["is_error"]) == sorted(expected)
    else:
        told = done.stdout.decode()
        assert all(code in told for code in expected)
    if name == "known dicom":
        assert b"nothing new" in done.stdout


@pytest.mark.parametrize("name", ATTEMPTS)
def test_no_name_is_printed(left: Left, name: str) -> None:
    done = left.done[name]
    assert holds(done.stdout) == holds(done.stderr) == []
    assert (b"Traceback" in done.stderr) == bool(ATTEMPTS[name].expected), "--debug shows where a refusal comes from"


def test_no_name_is_in_the_store(left: Left) -> None:
    kinds = {key.partition("/")[0] for key in left.objects}
    assert kinds == {"raw", "shards", "manifests", "reports", "pictures"}
    assert {key: found for key, data in left.objects.items() if (found := holds(data) or holds(key.encode()))} == {}


def test_reports_have_pictures_to_look_into(left: Left) -> None:
    pages = [data for key, data in left.objects.items() if key.startswith("reports/")]
    assert len(pages) == len(ATTEMPTS)
    assert sum(b";base64," in page for page in pages) >= 4


def test_no_name_is_in_any_file_of_the_home(left: Left) -> None:
    files = [path for path in left.home.rglob("*") if path.is_file()]
    assert {"registry.db", "patient.key", "stack.env"} <= {path.name for path in files}
    assert {path for path in files if path.suffix in (".log", ".dat")}, "the store's own files are looked into too"
    assert {str(path): found for path in files if (found := holds(path.read_bytes()))} == {}
    assert [path for path in left.home.rglob("*") if holds(path.name.encode())] == []


def test_nothing_stays_in_the_work_folder(left: Left) -> None:
    assert list((left.home / "work").iterdir()) == []
    assert list((left.home / "tmp").iterdir()) == []


def test_every_name_of_a_case_is_a_pseudonym(left: Left) -> None:
    with left.registry.reading() as session:
        rows = session.scalars(select(DatasetCase)).all()
    assert len(rows) == 12
    for row in rows:
        assert re.fullmatch(r"p-[0-9a-f]{12}", row.patient)
        assert re.fullmatch(r"p-[0-9a-f]{12}(_[A-D])?", row.case_id)


# ---- pseudonyms


def patients(context: Context, folder: Path) -> list[str]:
    result = ingest(context, IngestParameters(path=str(folder), size=32))
    assert result.state in ("ingested", "known"), result.problems
    with context.registry.reading() as session:
        rows = session.execute(
            select(DatasetCase.patient, DatasetCase.image_sha256).where(DatasetCase.digest == result.digest)
        )
        by_picture = {row.image_sha256: row.patient for row in rows}
    return [by_picture[digest] for digest in sorted(by_picture)]


def keyed(context: Context, key: str) -> Context:
    return replace(context, settings=context.settings.model_copy(update={"patient_key": SecretStr(key)}))


def test_patient_of_two_pictures_has_one_pseudonym(context: Context, tmp_path: Path) -> None:
    assert len(set(patients(context, write_dicom(tmp_path / "two", {"A": ID, "B": ID})))) == 3
    assert len(set(patients(context, write_dicom(tmp_path / "one")))) == 4


def test_other_key_gives_other_pseudonyms(context: Context, tmp_path: Path) -> None:
    source = write_dicom(tmp_path / "data")
    first, other = (patients(keyed(context, letter * 32), source) for letter in "ab")
    again = patients(keyed(context, "a" * 32), source)
    assert first == again
    assert set(first).isdisjoint(other)


def test_patient_in_two_splits_is_told_without_the_name(context: Context, tmp_path: Path) -> None:
    result = ingest(context, IngestParameters(path=str(write_dicom(tmp_path / "data", {"A": ID, "D": ID})), size=32))
    (told,) = (found for found in result.problems if found.is_error)
    assert (result.state, told.code) == ("refused", "patient_in_two_splits")
    assert re.fullmatch(r"in (train|test), the patient of p-[0-9a-f]{12} in (train|test)", told.found)
    assert not holds(f"{told}".encode())
    assert not holds(result.report)
