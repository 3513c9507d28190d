"""Advice about how to fine-tune a network on the data at hand, and the recipe that follows.

Owns the measurement of what each block's features are worth, the cases it tells apart, and what it prescribes.
May import ``pipeline`` and below. Read ``advice.py`` first.
"""
