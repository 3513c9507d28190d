"""Read recipes as text, validate them with all mistakes at once, and describe them as a JSON schema.

Owns the YAML document with line numbers and the settings of ``train:``. May import ``interfaces``, ``data``
(for the settings of sources) and ``plugins``. Imports no torch. Read ``load.py`` first.
"""
