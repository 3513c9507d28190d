"""Define what a plugin author subclasses or implements.

Owns ``Operation``, ``Objective``, ``Schedule``, ``Penalty``, ``Stage``, ``Family``, ``ArchitectureProvider``,
``Source``, ``Record`` and the hook specifications. May import ``checkpoint`` (for types) and ``errors``. Imports no
torch at run time, so that recipes are validated and operations listed before torch is loaded. Read
``operation.py`` first, then ``hooks.py``.
"""
