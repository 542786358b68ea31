"""Search in the embeddings of an archive.

    from earmark.search import EmbeddingArchive, most_similar

    hits = most_similar(earmark.load().embed("bark.wav").clip, EmbeddingArchive("results/"), top=20)

Conventions: similarity is the cosine of two embeddings, in [-1, 1].
"""

from earmark.search.archive import EmbeddingArchive as EmbeddingArchive
from earmark.search.archive import Filters as Filters
from earmark.search.conditions import Condition as Condition
from earmark.search.index import EmbeddingIndex as EmbeddingIndex
from earmark.search.similar import Hit as Hit
from earmark.search.similar import most_similar as most_similar
