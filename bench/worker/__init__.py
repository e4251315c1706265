"""One run in a process of its own: the loop, its sections, what is measured while it trains and afterwards.

May import records and the task protocol, and torch.
"""
