"""Whatever people's data, names, files and numbers were bent by, done again as they did it: right, or refused.

``PYTHONPATH=tests python -m cases`` runs all and prints a table; it fails if anything is wrong. ``python -m cases 13.3
folders`` runs those whose kind begins, or whose name goes on, like that. The kinds are numbered by issue and item. Of
421 cases in 28 kinds ``test_cases.py`` runs 290 by default, the others with ``-m slow``.
"""
