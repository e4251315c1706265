"""The one error of the reports; imports nothing, as every other file may raise it."""

from __future__ import annotations


class ReportError(ValueError):
    """A results folder that cannot be reported on; the message says which file, what, and the way out."""
