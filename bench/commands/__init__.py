"""The command line: one file a sub-command, the parser and what reads the words typed.

May import every other folder of bench; nothing imports this one. Before a command knows what to do it loads no torch.
"""
