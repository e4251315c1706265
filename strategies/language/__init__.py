"""From the words typed to a plan that is data: grammar, catalogue, named recipes, checks.

Imports methods by name only (catalogue), but for `full`, which an empty sum stands for; never a model or training.
"""
