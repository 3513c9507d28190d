"""Give an operation the network to inspect and edit, and keep a journal of every edit.

Owns opened networks (``opened.py``, ``replay.py``), the verbs of ``Surgery``, the private journal of a recipe's
operations and its comparison with a snapshot (``course.py``), the origins of tensors, and the plan. May import
``graph``, ``architectures``, ``recipe`` and the rooms below. Read ``context.py`` first, then ``opened.py`` and
``origins.py``.
"""
