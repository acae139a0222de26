"""Fuzz the picture readers: whatever the bytes, `decode` gives a picture or raises `Faulty`.

    python tests/fuzz/fuzz_pictures.py -max_total_time=60

It begins with a small whole file of every format. What finds something is left in the working folder as `crash-...`:
keep it as a test.
"""

from __future__ import annotations

import gzip
import io
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, it would find only this folder
warnings.simplefilter("ignore")

with atheris.instrument_imports(include=["femur_tasks.dataset", "pydicom", "PIL"]):
    from femur_tasks.dataset.pictures import decode
    from femur_tasks.dataset.problems import Faulty

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from femur_tasks.dataset.pictures import nifti  # noqa: E402


def seeds() -> dict[str, bytes]:
    """A small whole file of every format, by name."""
    grey = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10)
    zipped = nifti.encode(grey, (0.1, 0.2))
    found = {"grey.nii.gz": zipped, "grey.nii": gzip.decompress(zipped)}
    found["float.nii"] = gzip.decompress(nifti.encode(grey.astype(np.float32), None))
    pictures = {"grey": Image.fromarray(grey), "grey16": Image.fromarray(grey.astype(np.uint16))}
    pictures |= {mode: pictures["grey"].convert(mode) for mode in ("1", "P", "RGB", "CMYK")}
    for mode, image in pictures.items():
        for kind, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("TIFF", "tif")):
            buffer = io.BytesIO()
            try:
                image.save(buffer, format=kind)
            except OSError:  # a mode that this format does not have
                continue
            found[f"{mode}.{suffix}"] = buffer.getvalue()
    return found | {f"{name}.dcm": _dicom(grey, name) for name in ("plain", "rle", "jpeg")}


def _dicom(grey_hw: np.ndarray, code: str) -> bytes:
    from pydicom import Dataset, uid
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.filewriter import dcmwrite

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    made.PatientName, made.PatientID, made.PatientOrientation = "Doe^Jane", "4711", ["L", "F"]
    made.Rows, made.Columns = grey_hw.shape
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PixelRepresentation = 1, "MONOCHROME1", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 8, 8, 7
    made.RescaleSlope, made.RescaleIntercept, made.WindowCenter, made.WindowWidth = "2", "-5", "60", "90"
    made.PixelSpacing = ["0.2", "0.1"]
    made.add_new("PixelData", "OB", grey_hw.tobytes())
    if code == "rle":
        made.compress(uid.RLELossless, encoding_plugin="pydicom")
    elif code == "jpeg":
        buffer = io.BytesIO()
        Image.fromarray(grey_hw).save(buffer, format="JPEG")
        made.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
        made.PixelData = encapsulate([buffer.getvalue()])
        made["PixelData"].is_undefined_length = True
    buffer = io.BytesIO()
    dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def one(data: bytes) -> None:
    """What a fuzzer calls."""
    try:
        picture = decode(data)
    except Faulty:
        return
    if picture.clean is not None and decode(picture.clean).clean is not None:
        raise RuntimeError("Expected a clean file to be clean. Received: one that is to be cleaned again.")


def main() -> None:
    """Write the seeds, and fuzz."""
    with tempfile.TemporaryDirectory(prefix="femur-fuzz-") as folder:
        for name, data in seeds().items():
            (Path(folder) / name).write_bytes(data)
        atheris.Setup([*sys.argv, folder, "-max_len=4096"], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
