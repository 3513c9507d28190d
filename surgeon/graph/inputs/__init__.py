"""Make the inputs that a network is traced with.

Owns the search for inputs: from a recipe or a family, then from a transformers config, then from the first layer
that has weights. May import ``families``, ``nn``, ``interfaces`` and the rest of ``graph``. Read
``resolve.py`` first.
"""
