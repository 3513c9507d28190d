"""Inspect and edit one network's module tree: sites, traces, roles, edits and skeletons.

Owns the facts about a module tree and about one forward pass through it, and the elementary edits. May import
``families``, ``nn``, ``interfaces``. Read ``sites.py`` first, then ``trace.py`` and ``roles.py``.
"""
