"""Declare facts about families of networks, as data.

Owns what torchvision and transformers networks are like: heads, blocks, config fields, inputs. A plugin declares the
same facts about its networks through ``surgeon.Family``. May import ``interfaces`` and ``errors``. Read
``registry.py`` first.

To add a fact about torchvision, edit ``torchvision.py``; about transformers, the file of ``transformers/`` whose
docstring names it; about another library, write a file and list it in ``registry.py``. A new kind of fact is a field of
``Family`` in ``interfaces/family.py``.
"""
