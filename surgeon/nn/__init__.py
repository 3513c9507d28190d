"""Define the modules that operations add to networks.

Owns grafts, frozen norms, laterals, columns, stems, heads and pools. Pickled modules name these paths, so they never
move. May import ``errors`` and ``interfaces`` only. Read ``grafts.py`` first.
"""
