"""The embedded data set: generated scenes and questions in VQA v2's official file format.

Imports nothing else of vqa_model but the cache folder.
"""
