"""Facts about families of networks, as data.

Owns what torchvision and transformers networks are like: heads, blocks, config fields, inputs. A plugin says the
same of its networks through ``surgeon.Family``. May import ``interfaces`` and ``errors``. A fact about a network of
torchvision goes into ``torchvision.py``, of transformers into ``transformers/``, of another library into a file of its
own that ``registry.py`` lists.
"""
