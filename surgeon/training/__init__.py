"""Fine-tune networks: losses, penalties, schedules, the feature cache, and the loop on the transformers Trainer.

Owns what happens between loading weights and trained ones. May import ``surgery``, ``data``, ``recipe`` and below.
Read ``session.py`` first.

To add a loss, write it in ``losses.py``, list it in ``surgeon_losses`` there, and say in ``task_of`` of ``metrics.py``
what it predicts. A metric that a task always reports goes into ``measures.py``, which ``metrics.py`` applies to the
samples by task and domain; one that a recipe names under ``metrics`` goes into ``further_metrics.py``, listed in its
``surgeon_metrics``. A penalty goes into ``conservation.py`` or a file like it.
"""
