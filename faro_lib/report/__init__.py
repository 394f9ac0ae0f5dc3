"""The report: one self-contained page with every figure and table of a run."""

from faro_lib.report.page import page_of, write_report
from faro_lib.report.tables import MEASURES

__all__ = ["MEASURES", "page_of", "write_report"]
