"""Make the inputs that a network is traced with.

Owns the search for inputs: what a recipe or a family says, then what a transformers config tells, then what the
first layers accept. May import ``families``, ``nn``, ``interfaces`` and the rest of ``graph``. Read
``resolve.py`` first.
"""
