"""Read samples from folders of pictures, tables, saved datasets, the hub, and scikit-learn's digits.

Owns reading, encoding, splitting and combining samples. May import ``interfaces`` and ``errors``. ``sources.py``
defines the settings in a recipe and imports no torch: read it first, then ``tables.py``.

To add a source, define its class in ``sources.py``, list it in ``BUNDLED`` there, and write a file that reads it.
"""
