"""A report for people: one page, of what is learned and how."""

from qortex_db.report.page import page
from qortex_db.report.reading import Report, read

__all__ = ["Report", "page", "read"]
