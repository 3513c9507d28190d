"""Who can build a network, and which network a checkpoint holds.

Owns the providers (torchvision, transformers, Python functions), identification by names and shapes, and the opening
of sources and donors. May import ``graph``, ``interfaces``, ``checkpoint``, ``plugins``. Read
``registry.py`` first, then ``source.py``.
"""
