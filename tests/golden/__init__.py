"""Golden results: what surgery gave for a dozen networks and recipes, recorded and compared.

A record (``records/CASE.json``) holds the hash of every tensor, the plan, the manifest less paths and versions,
and figures of one forward. They pin behaviour while code moves, so everything here goes through the public functions
and the command line alone. Where a result changes on purpose, record again and read the difference in the commit::

    PYTHONPATH=tests python -m golden            # all cases
    PYTHONPATH=tests python -m golden bert swin  # some

``cases.py`` lists the cases, ``records.py`` makes a record of one, ``differences.py`` compares two.
"""
