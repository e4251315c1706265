"""Runs recipes and measures them: a process and a record per run, CSVs rebuilt from records.

What may enter: `strategies` (through its public functions) and a task, reached only by its import path.
No method is named here: a new strategy never touches this package.
"""
