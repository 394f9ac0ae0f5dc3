"""The report: one self-contained page with every figure and table of a run."""

from faro_lib.report.page import MEASURES, page_of, write_report

__all__ = ["MEASURES", "page_of", "write_report"]
