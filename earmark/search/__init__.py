"""Search in the embeddings of an archive.

Conventions: similarity is the cosine of two embeddings, in [-1, 1].
"""
