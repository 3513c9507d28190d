"""Provide the operation ``truncate``: end a network at a site, or keep some of its blocks.

Read ``operation.py`` first; ``keep_blocks.py`` removes blocks and updates the config.
"""
