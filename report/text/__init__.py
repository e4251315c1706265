"""Words made of frames: summary, findings, verdicts, tables in Markdown files.

May import figures (their captions) and frames.
"""
