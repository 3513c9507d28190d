"""The public verbs, from a model to a written artifact: open, operate, fill, write, reload, fine-tune.

Owns the order of those steps and nothing of what happens inside one. May import every room but ``testing``,
``advising`` and ``cli``. Read ``api.py`` first, then ``prepare.py``.
"""
