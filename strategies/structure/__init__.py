"""How a model is taken apart and changed: blocks, roles, linear layers, adapters, freezing.

Shared by methods and training; imports the protocol and what is below, never a method.
"""
