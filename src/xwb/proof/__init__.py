"""Checks of a backward pass against measurements that do not know it."""

from ._check import check, check_subject
from ._report import Diagnosis, Finding, Report, Row
from ._subject import Pass, Subject, in_order, parameter_names

__all__ = [
    "Diagnosis",
    "Finding",
    "Pass",
    "Report",
    "Row",
    "Subject",
    "check",
    "check_subject",
    "in_order",
    "parameter_names",
]
