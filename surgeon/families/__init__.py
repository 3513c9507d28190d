"""Declare facts about families of networks, as data.

Owns what torchvision and transformers networks are like: heads, blocks, config fields, inputs. A plugin declares the
same facts about its networks through ``surgeon.Family``. May import ``interfaces`` and ``errors``. Facts about
torchvision go into ``torchvision.py``, facts about transformers into ``transformers/``, facts about another library
into a new file that ``registry.py`` lists.
"""
