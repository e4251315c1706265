"""The figures of a sweep: one function each from what may be compared to a matplotlib figure; catalogue.py lists them.

May import frames; writes no file but through style.py.
"""
