"""What people look at: plans as diffs, trees, lists, errors.

Owns text and colour, decides nothing. Imports no torch when it is imported. Read ``plans.py`` first.
"""
