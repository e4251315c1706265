"""How a child process is started: forked from a server that has imported everything, or a fresh interpreter.

A program here is a module with `main(arguments) -> exit status`. May enter: records. The parent never loads torch.
"""
