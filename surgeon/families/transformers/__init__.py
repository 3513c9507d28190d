"""Declare facts about transformers networks: heads, blocks, config fields, arguments of a forward.

``heads.py`` has the heads and blocks of classes, ``fields.py`` the names of config fields, ``arguments.py`` and
``argument_groups.py`` the inputs of a forward, in terms of ``quantities.py``, and ``tasks.py`` the tasks with a class.
May import ``interfaces``. transformers is imported inside functions.
"""
