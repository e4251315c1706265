"""What is written of a tuned model and read back: weights, manifest, merged weights.

May import structure; knows nothing of plans or training.
"""
