"""Which strategies combine: every pair trained on a tiny model, and what each left behind.

Stands at the top: it imports recipes and everything below; nothing imports it.
"""
