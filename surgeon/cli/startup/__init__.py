"""Make commands start faster; nothing outside ``cli`` may depend on this room.

Owns the import hook that defers rarely used parts of libraries. Read ``lazy_imports.py``.
"""
