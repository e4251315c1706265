"""What a plan will need before anything runs: memory and operations on fake tensors.

May import training and what is below.
"""
