"""The operation ``progressive``: a new column beside a frozen network, with lateral connections.

Read ``operation.py`` first; ``column.py`` makes the new column.
"""
