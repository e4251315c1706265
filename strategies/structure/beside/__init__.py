"""What adapters have beside the layers they stand on: ranks of their own, modules that train whole, rows that train.

May import choice and layers; the options' names are PEFT's.
"""
