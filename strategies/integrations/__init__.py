"""A plan in other loops and formats: Hugging Face's Trainer, Accelerate, PEFT's files.

May import training, saving and what is below.
"""
