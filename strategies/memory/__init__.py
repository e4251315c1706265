"""What is kept for the backward pass: a file per method or close family, its docstring is the method's card."""
