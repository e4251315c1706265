"""One update carried out: engine, optimizer, schedule, micro-batches, batch order.

What the hooks of a strategy are given, so it stands below the protocol and imports nothing but errors.
"""
