"""Memory and time of a run predicted, also for GPUs that are not there.

May import records and the task protocol.
"""
