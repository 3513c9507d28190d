"""Write new plugin packages, from the templates beside this file.

Owns the templates (``templates/KIND`` and ``templates/common``) and the rules for names. May import ``plugins`` and
below. Read ``package.py``.
"""
