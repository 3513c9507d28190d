"""The operation ``adapt_input``: other input channels, or another resolution.

Read ``operation.py`` first; ``channels.py`` and ``resolution.py`` do the work.
"""
