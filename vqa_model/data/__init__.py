"""VQA v2's data: the official files, questions, splits, answer vocabulary, decoded images, the official accuracy.

May import the picture world, which stands in where no data is given; never the model.
"""
