"""A plan at work: applied, fed, stepped, checked after the first update, checkpointed.

May import language, saving, structure and execution.
"""
