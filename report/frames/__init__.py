"""Data frames: a sweep's CSVs and side files read and checked, runs that may be compared, and the statistics of them.

Imports nothing else of report but its errors; draws and writes nothing.
"""
