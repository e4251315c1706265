"""The shared visual-question-answering model and its task: a ViT, a BERT, a fusion head.

A leaf room: it never imports `strategies`, `bench` or `report`. `bench` reaches it through the
import path `vqa_model.task:VQATask` only. Nothing heavy is imported here, so that
`import vqa_model` costs nothing; take what you need from its modules.
"""
