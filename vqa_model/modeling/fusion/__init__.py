"""Ways to fuse question and image: the modules, and the registry that names them and reads how one is written.

Imports torch alone.
"""
