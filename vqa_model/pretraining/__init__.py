"""The work of `python -m vqa_model.pretrain`: the two tiny towers that ship are pretrained on one kind of data each.

May import modeling and the picture world.
"""
