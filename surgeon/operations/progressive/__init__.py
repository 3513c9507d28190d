"""Provide the operation ``progressive``: add a column next to a frozen network, with lateral connections.

Read ``operation.py`` first; ``column.py`` makes the new column.
"""
