"""Provide the operation ``adapt_input``: change the number of input channels, or the resolution.

Read ``operation.py`` first; ``channels.py`` and ``resolution.py`` do the work.
"""
