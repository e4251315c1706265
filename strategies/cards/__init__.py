"""Method cards: what a method's docstring says, as data and as the page docs/strategies.md.

May import language.
"""
