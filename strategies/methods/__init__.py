"""The catalogue: one method or close family a file, its docstring is its card.

May import structure, the protocol and execution; never each other's kinds, a plan or training.
"""
