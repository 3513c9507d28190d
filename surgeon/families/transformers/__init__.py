"""Declare facts about transformers networks: heads, blocks, config fields, arguments of a forward.

May import ``interfaces``. transformers is imported inside functions. Read ``heads.py`` first.
"""
