"""The parts of `python -m vqa_model.download`: what VQA v2 consists of, what is missing of it, and how it gets here.

`official_files` is the table of files, `wanted` compares it with a folder, `fetching` brings one file through a bad
network (`remote` reads what the server says of it), `arrived` checks it and puts it in place.
"""
