"""The work of `vqa_model.predict` and `demo`: a saved model answers questions about images.

May import modeling and data; it never trains.
"""
