"""The operation ``replace_head``: a head for new classes, in place or on top of features.

Read ``operation.py`` first, then ``carry_out.py``; ``fields.py`` holds the recipe keys, ``class_rows.py`` the values of
the last layer, ``detection.py`` the heads of detectors.
"""
