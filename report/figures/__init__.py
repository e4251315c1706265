"""The figures of a sweep, one function each; catalogue.py lists them.

May import frames; writes no file but through style.py.
"""
