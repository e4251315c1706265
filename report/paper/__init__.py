"""The IEEE report of a sweep: LaTeX from a template and the CSVs.

May import text, figures and frames; imports nothing of page. PDFs are made where LaTeX is installed.
"""
