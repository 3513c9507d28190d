"""Fine-tune networks: losses, penalties, schedules, the feature cache, and the loop on the transformers Trainer.

Owns what happens between loading weights and trained ones. May import ``surgery``, ``data``, ``recipe`` and below.
Read ``session.py`` first. A loss goes into ``losses.py``, a penalty of an operation into ``conservation.py`` or a file
like it, a metric into ``measures.py``.
"""
