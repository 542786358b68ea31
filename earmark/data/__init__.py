"""Clips on disk -> batches for training: manifests, data sets, augmentation."""
