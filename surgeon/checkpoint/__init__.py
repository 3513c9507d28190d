"""Bytes of checkpoints: formats, lazy reading, writing. Knows nothing of networks.

Owns safetensors, torch's zip and legacy files, folders and shards, and artifacts on disk. May import ``errors`` only.
Read ``formats.py`` first; a new file format is a file beside ``torchfile.py``, listed in
``formats.py``.
"""
