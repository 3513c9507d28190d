"""Provide the operation ``replace_head``: make a head for new classes, in place or on top of features.

Read ``operation.py`` first, then ``carry_out.py``; ``fields.py`` holds the recipe keys, ``class_rows.py`` the values of
the last layer, ``detection.py`` the heads of torchvision's detectors. For transformers networks ``stock.py`` chooses
the class, ``sibling.py`` moves the trunk there, and ``class_counts.py`` changes the count of a class that has one.
"""
