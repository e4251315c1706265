"""Methods that change what is kept for the backward pass.

A file per method or close family, its docstring is its card; methods of other kinds are not imported.
"""
