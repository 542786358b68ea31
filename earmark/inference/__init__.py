"""Runs models: recordings and streams -> scores, tags, embeddings.

Conventions: a session runs the network of one model file or checkpoint, a tagger everything around it; the
network takes one window at a time. PyTorch is needed for checkpoints and inner stages only.
"""
