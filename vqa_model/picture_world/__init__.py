"""The embedded data set: scenes drawn from a seed, questions about them, written in VQA v2's official file format.

Imports nothing else of vqa_model but the cache folder.
"""
