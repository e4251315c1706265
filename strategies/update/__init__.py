"""How gradients become updates: a file per method or close family, its docstring is the method's card."""
