"""Read and write the bytes of checkpoints. Knows nothing of networks.

Owns safetensors, torch's zip and legacy files, folders and shards, artifacts on disk, and the files that belong to the
weights, such as tokenizers. May import ``errors`` only. Read ``formats.py`` first.

To read another format, write a file like ``torchfile.py`` and open it in ``formats.py``, by the first bytes that
``files.py`` recognises; to write one, a file like ``torch_writer.py`` that ``artifact.py`` calls. Formats that are only
exported are in ``pipeline.exports``. To copy another kind of file with the weights, add its name to ``KINDS`` in
``companions.py``; if surgery changes its content, update it in ``pipeline/companions.py``.
"""
