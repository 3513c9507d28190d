"""What an operation is handed: the network to inspect and to edit, with a journal of every edit.

Owns ``Surgery``, the origins of tensors, the journal and its comparison with a snapshot, the plan, and the replay of
recorded operations. May import ``graph``, ``architectures``, ``recipe`` and the rooms below. Read ``context.py`` first,
then ``origins.py``.
"""
