"""Build networks, and identify which network a checkpoint holds.

Owns the providers (torchvision, transformers, Python functions), identification by names and shapes, and opening
sources and donors. May import ``graph``, ``interfaces``, ``checkpoint``, ``plugins``. Read ``registry.py`` first, then
``source.py``.
"""
