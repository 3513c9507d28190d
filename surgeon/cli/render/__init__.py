"""Draw output for people: plans as diffs, trees, lists, errors.

Owns text and colour; makes no decisions. Importing it does not import torch. Read ``plans.py`` first.
"""
