"""Write a network in a form that others load without surgeon, and prove it before it takes its place.

Owns the forms (``torch-export``, ``onnx``, ``state-dict``, ``hf``), one file each, and the check that they share: the
result is loaded in another process in which ``surgeon`` cannot be imported, and its outputs are compared. May import
what ``pipeline`` may. Read ``exporter.py`` first; ``consumer.py`` is the script that the other process runs.
"""
