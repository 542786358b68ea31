"""Archives: many recordings -> tables of files, tags, events and embeddings.

Conventions: a file that cannot be read is a row with its error, never the end of a run.
"""
