"""Read samples from folders of pictures, tables, saved datasets, the hub, and scikit-learn's digits.

Owns reading, encoding, splitting and combining samples. May import ``interfaces`` and ``errors``. ``sources.py``
defines the settings in a recipe and imports no torch: read it first, then ``tables.py``. A new source is a class in
``sources.py`` and a file that reads it.
"""
