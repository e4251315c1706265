"""The work of `vqa_model.download`: VQA v2's files, which are missing, and their download.

`official_files` is the table of files, `missing_files` compares it with a folder, `fetcher` brings one file through a
bad network (`response_headers` reads what the server says of it), `integrity` checks it and puts it in place, `run` is
the whole. May import data.
"""
