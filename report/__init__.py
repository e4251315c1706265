"""From a sweep's CSVs to what people read: figures, summary, HTML page, paper.

What may enter: result files and `bench.records.record`, which holds their schema (standard library only); never
torch. Everything between reading and writing is a pure function from data frames, so a figure can be drawn
again from committed results on any machine. No recipe is named here: a new strategy never touches this package.
"""
