"""What a run will need before it is run: memory and time predicted on GPUs that need not be there.

May import records and the task protocol.
"""
