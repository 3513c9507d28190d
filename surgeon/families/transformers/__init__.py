"""What transformers' networks are like: heads, blocks, config fields and the arguments of a forward.

May import ``interfaces``. Imports of transformers itself happen inside functions. Read ``heads.py`` first.
"""
