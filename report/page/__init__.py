"""One self-contained HTML page of a sweep: its data as JSON, a template, a style sheet and a script.

May import text, figures' style and frames; imports nothing of paper.
"""
