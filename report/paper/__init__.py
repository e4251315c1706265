"""The IEEE report of a sweep: LaTeX from a template and the CSVs."""
