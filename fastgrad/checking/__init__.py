"""How are hand-written gradients checked? Against differences of f, with the fault in words."""

from fastgrad.checking.check import check_gradient
from fastgrad.checking.report import Report
from fastgrad.checking.slope import Slope, slope_test

__all__ = ["Report", "Slope", "check_gradient", "slope_test"]
