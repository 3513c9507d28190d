"""Advise how to fine-tune a network on given data, and write the recipe.

Owns the scores of each block's features, the decision between four cases, and the recipe for each case.
May import ``pipeline`` and below. Read ``advice.py`` first.
"""
