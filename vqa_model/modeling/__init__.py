"""The shared model: towers of the ViT and BERT families, fusion, answer head; its configuration, processor and card.

May import how images are read (data.pictures); never a task, a command or a data set.
"""
