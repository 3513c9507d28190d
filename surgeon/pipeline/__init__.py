"""Run the public verbs, from a model to a written artifact: open, operate, read weights, write, reload, train.

Owns the order of those steps, not what happens inside one. May import every room but ``testing``, ``advising`` and
``cli``. Read ``api.py`` first (plan, apply, save, load, verify), then ``prepare.py``. ``finetune.py`` applies and
trains in memory; ``run.py`` and ``training_run.py`` are the commands ``apply`` and ``train``; ``network_view.py`` is
``inspect``. ``exports`` writes formats that load without surgeon, ``publishing`` writes model cards and pushes to the
hub, ``companions.py`` updates tokenizers and the like. ``manifest.py`` makes an artifact's manifest,
``architectures/artifact_record.py`` reads it, and ``integrity.py`` compares files with it.
"""
