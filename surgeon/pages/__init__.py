"""Draw networks, plans, comparisons and trainings as self-contained HTML pages.

Owns what a page shows (:mod:`surgeon.pages.drawing` makes it plain data) and how (``assets/``: one template, one style
sheet, three scripts, and elkjs, which lays the graph out in the browser). Imports ``pipeline`` and the rooms below it.
Read :mod:`surgeon.pages.write` first.
"""
