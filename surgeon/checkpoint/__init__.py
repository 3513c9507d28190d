"""Read and write the bytes of checkpoints. Knows nothing of networks.

Owns safetensors, torch's zip and legacy files, folders and shards, and artifacts on disk. May import ``errors`` only.
Read ``formats.py`` first. A new file format is a file beside ``torchfile.py``, listed in ``formats.py``.
"""
