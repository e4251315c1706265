"""The work of `vqa_model.download`: VQA v2's files, which are missing, and their download.

`official_files` is the table of files, `wanted` compares it with a folder, `fetching` brings one file through a bad
network (`remote` reads what the server says of it), `arrived` checks it and puts it in place.
"""
