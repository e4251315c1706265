"""One self-contained HTML page of a sweep: data as JSON, template, style sheet, script.

May import text, figures' style and frames; imports nothing of paper.
"""
