"""A report about labelled data: what is in it, and everything that is odd, all at once.

The checks at the door (:func:`~kddetr.data.check_dataset`) stop at the first mistake; the report
goes through all of them and shows pictures.
"""

from .inspect import inspect_data
from .page import write_data_page
from .report import DataReport, Finding

__all__ = ["DataReport", "Finding", "inspect_data", "write_data_page"]
