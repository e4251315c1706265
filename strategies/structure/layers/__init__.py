"""A single layer: how it holds its weight, who reads that, what may take its place.

Imported by structure, methods and saving; imports errors, layout and the linear layers of the room around it.
"""
