"""Words made of frames: the Markdown summary, findings, verdicts, and the tables kept true in Markdown files.

May import figures (their captions) and frames.
"""
