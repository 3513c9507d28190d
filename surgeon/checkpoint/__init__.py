"""Checkpoints in, artifacts out."""
