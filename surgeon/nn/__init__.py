"""The modules that operations put into networks.

Owns grafts, frozen norms, laterals, columns, stems, heads and pools. Saved modules name these paths, so they never
move. May import ``errors`` only, so that a network with them stands on its own. Read ``grafts.py`` first.
"""
