"""A sweep: which runs there are, a process for each, their progress, and what is printed at the end.

May import forecast and records. It never loads torch: what needs it happens in child processes.
"""
