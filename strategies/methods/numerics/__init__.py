"""Methods that change numerical precision and quantisation.

A file per method or close family, its docstring is its card; methods of other kinds are not imported.
"""
