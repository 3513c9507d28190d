"""Write a network in a format that loads without surgeon, and check it before it replaces the output.

Owns the formats (``torch-export``, ``onnx``, ``state-dict``, ``hf``), one file each, and their common check: the result
is loaded in another process in which ``surgeon`` cannot be imported, and its outputs are compared. May import what
``pipeline`` may. Read ``exporter.py`` first; ``consumer.py`` is the script of the other process.

To add a format: write a file like ``onnx_file.py``; name the format in ``Form`` and ``SUFFIXES`` of ``exporter.py``,
which calls it; load it in ``consumer.py``; and name it in ``surgeon/cli/export.py``.
"""
