"""Trained models as files that other programs load: one file a format, one manifest and card for each export."""
