"""The core graph utility: sites, traces, roles, edits and skeletons of one network.

Owns what can be known of a module tree and of one forward through it, and the elementary edits. May import
``families``, ``nn``, ``interfaces``. Read ``sites.py`` first, then ``trace.py`` and ``roles.py``.
"""
