"""How training is fed: what an update holds, and what passes through the model at a time."""
