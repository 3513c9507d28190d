"""What several operations share: recipe keys, new heads, labels, initialisation.

Nothing here knows an operation; helpers take plain values or the shared fields. May import ``surgery`` and below.
"""
