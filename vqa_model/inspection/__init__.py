"""The work of `vqa_model.inspect`: facts of a data set, computed, printed and plotted.

May import data; never the model.
"""
