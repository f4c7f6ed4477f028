"""Checks of a backward pass against measurements that do not know it."""

from ._check import check, check_subject
from ._grade import grade, match
from ._inputs import Inputs, inputs_of
from ._marks import Grade, Part
from ._operands import operands
from ._proof import Case, Formula, Proof, Verdict
from ._prove import prove
from ._raised import own_line, raised
from ._reference import load, reference
from ._report import Diagnosis, Finding, Report, Row
from ._subject import Pass, Subject, in_order, parameter_names

__all__ = [
    "Case",
    "Diagnosis",
    "Finding",
    "Formula",
    "Grade",
    "Inputs",
    "Part",
    "Pass",
    "Proof",
    "Report",
    "Row",
    "Subject",
    "Verdict",
    "check",
    "check_subject",
    "grade",
    "in_order",
    "inputs_of",
    "load",
    "match",
    "operands",
    "own_line",
    "parameter_names",
    "prove",
    "raised",
    "reference",
]
