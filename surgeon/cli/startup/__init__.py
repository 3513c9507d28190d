"""Measures that make a command start faster; nothing outside of ``cli`` may rely on them.

Owns the import hook that puts off parts of libraries which a command seldom uses. Read ``lazy_imports.py``.
"""
