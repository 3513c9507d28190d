"""Fine-tuning: losses, penalties, schedules, the feature cache and the loop on the transformers Trainer.

Owns what happens between loaded weights and trained ones. May import ``surgery``, ``data``, ``recipe`` and below. Read
``session.py`` first.
"""
