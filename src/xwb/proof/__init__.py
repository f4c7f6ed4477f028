"""Checks of a backward pass against measurements that do not know it."""

from ._check import check, check_subject
from ._operands import operands
from ._prove import Case, Formula, Proof, Verdict, prove
from ._report import Diagnosis, Finding, Report, Row
from ._subject import Pass, Subject, in_order, parameter_names

__all__ = [
    "Case",
    "Diagnosis",
    "Finding",
    "Formula",
    "Pass",
    "Proof",
    "Report",
    "Row",
    "Subject",
    "Verdict",
    "check",
    "check_subject",
    "in_order",
    "operands",
    "parameter_names",
    "prove",
]
