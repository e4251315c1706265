"""From a sweep's CSVs to what people read: figures and a Markdown summary.

What may enter: result files and `bench.records.record`, which holds their schema (standard library only); never
torch. Everything between reading and writing is a pure function from data frames, so a figure can be drawn
again from committed results on any machine. No recipe is named here: a new strategy never touches this package.
"""


class ReportError(ValueError):
    """A results folder that cannot be reported on; the message says which file, what, and the way out."""
