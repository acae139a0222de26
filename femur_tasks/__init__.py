"""Nightly retraining of a femur segmentation model. This package never imports airflow."""

__version__ = "0.1.0"
