"""Recipes as text: read, validate with all mistakes at once, and describe as a JSON schema.

Owns the YAML document with its line numbers and the settings of ``train:``. May import ``interfaces``, ``data``
(for the settings of sources) and ``plugins``. Imports no torch. Read ``load.py`` first.
"""
