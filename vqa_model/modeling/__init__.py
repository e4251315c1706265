"""The shared model: towers, fusion, answer head; its configuration, processor and card.

May import how images are read (data.pictures); never a task, a command or a data set.
"""
