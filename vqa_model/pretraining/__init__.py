"""The work of `vqa_model.pretrain`: unimodal pretraining of the two tiny towers that ship.

May import modeling and the picture world.
"""
