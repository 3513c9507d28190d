"""The sweep: every torchvision builder and every model type of transformers, put through every operation.

``PYTHONPATH=tests python -m zoo --jobs 2`` runs what its results file lacks and writes ``tests/zoo/RESULTS.md``.
"""
