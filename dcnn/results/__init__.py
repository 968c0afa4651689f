"""Results of a sweep: records, files, statistics in words, figures and reports."""

from dcnn.results.records import Point, Result, Row, Table
from dcnn.results.storage import load, save

__all__ = ["Point", "Result", "Row", "Table", "load", "save"]
