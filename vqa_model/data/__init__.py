"""VQA v2: official files, questions, splits, answer vocabulary, images, official accuracy.

May import the picture world, which stands in where no data is given; never the model.
"""
