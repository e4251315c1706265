"""Data frames: CSVs and side files read and checked, comparable runs, statistics.

Imports nothing else of report but its errors; draws and writes nothing.
"""
