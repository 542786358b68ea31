"""Own sounds: a folder of recordings -> a tagger, with a report on how good it is.

Conventions: what a report says about a clip was computed by a model that was not fitted on it.
"""
