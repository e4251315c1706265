"""What is written and read: schema, specification, events, records, results folder, CSVs.

Standard library only (report imports the schema from here); imports nothing else of bench.
"""
