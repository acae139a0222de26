"""Synthetic AP pelvis radiographs with masks: for demos, tests and benchmarks. Nobody's patient.

A `subject` is drawn, `pelvis`, `spine` and `femur` are posed and projected onto a `plate` as thickness (mm of tissue
along the beam), and the `exposure` turns the sum of their attenuations into grey values.

Anatomical right is on the left of the picture, as it is read.
"""

from femur_tasks.phantom.case import PhantomCase, make_case
from femur_tasks.phantom.dataset import write_dataset
from femur_tasks.phantom.labels import LABELS

__all__ = ["LABELS", "PhantomCase", "make_case", "write_dataset"]
