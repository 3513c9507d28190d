"""Sources of samples: folders of pictures, tables, saved datasets, the hub, the digits of scikit-learn.

Owns reading, encoding, splitting and combining samples. May import ``interfaces`` and ``errors``. ``sources.py`` holds
what a recipe may say and imports no torch: read it first, then ``tables.py``. A new source is a class in
``sources.py`` and a file that reads it.
"""
