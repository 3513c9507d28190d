"""Generate the documentation site from the code: ``python -m surgeon.docs``.

Owns the pages of the reference (operations, recipes, sources, commands, errors, artifacts, the Python interface), the
few pages written by hand (``*.md``), and the call of Sphinx. May import everything. It is not part of the wheel; it
needs a checkout and the extra ``docs``. Read ``pages.py`` first.
"""
