"""Share code between operations: recipe keys, new heads, labels, initialisation.

Nothing here imports an operation; helpers take plain values or the shared fields. May import ``surgery`` and below.
"""
