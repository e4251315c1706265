"""Runs recipes and measures them: one fresh process per run, one record per run, CSVs rebuilt from the records.

What may enter: `strategies` (through its public functions) and a task, reached only by its import path.
No method is named here: a new strategy never touches this package.
"""
