"""Which layers a strategy adapts, which it must not adapt, and why.

Imports the rest of `strategies/structure/` and what is below; used by adapters of every kind.
"""
