"""Whom does a smaller model serve worse: which classes, which groups, which examples, and how sure of itself it is?"""

from prunus.evaluate.harm.calibration import CalibrationChange, CalibrationRow, calibration_change
from prunus.evaluate.harm.contract_test import (
    Groups,
    check_classes,
    check_groups,
    check_margin,
    check_margins,
    contract_test,
    fewest_examples,
)
from prunus.evaluate.harm.flips import Flip, Flips, flips
from prunus.evaluate.harm.part_changes import PartChange, PartChanges, change_by_class, change_by_group

__all__ = [
    "CalibrationChange",
    "CalibrationRow",
    "Flip",
    "Flips",
    "Groups",
    "PartChange",
    "PartChanges",
    "calibration_change",
    "change_by_class",
    "change_by_group",
    "check_classes",
    "check_groups",
    "check_margin",
    "check_margins",
    "contract_test",
    "fewest_examples",
    "flips",
]
