"""The command line: one file a sub-command, its parser and its work.

May import every other folder of bench; nothing imports this one. Before a command knows what to do it loads no torch.
"""
