"""The public verbs, from a model to a written artifact: open, operate, read weights, write, reload, train.

Owns the order of those steps and nothing of what happens inside one. May import every room but ``testing``,
``advising`` and ``cli``. Read ``api.py`` first (plan, apply, save, load, verify), then ``prepare.py``; ``finetune.py``
applies and trains in memory, ``run.py`` and ``training_run.py`` do what the commands ``apply`` and ``train`` do, and
``network_view.py`` what ``inspect`` does. ``manifest.py`` makes an artifact's manifest; on load it is read by
``architectures/artifact_record.py``, and ``integrity.py`` compares files with it.
"""
