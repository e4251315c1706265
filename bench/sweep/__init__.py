"""A sweep: which runs there are, a process for each, their progress, the closing table.

May import forecast and records. It never loads torch: what needs it happens in child processes.
"""
