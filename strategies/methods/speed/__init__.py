"""Methods that change how the same computation is executed.

A file per method or close family, its docstring is its card; methods of other kinds are not imported.
"""
