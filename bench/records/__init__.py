"""What is written and read: schema, specification, events, records, results folder, CSVs.

record.py, which report imports, needs the standard library alone; nothing here imports other folders of bench.
"""
