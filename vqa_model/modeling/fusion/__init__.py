"""Ways to fuse question and image, and the registry that names them.

Imports torch alone.
"""
