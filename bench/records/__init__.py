"""What is written and read: the schema, a run's specification, events, record and folder, and the CSVs made of them.

Standard library only (report imports the schema from here); imports nothing else of bench.
"""
