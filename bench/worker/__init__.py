"""One run in a process of its own: the loop, its sections, and what is measured.

May import records and the task protocol, and torch.
"""
