"""Write a grafted transformers network as a folder with the code that builds it: ``auto_map``, without surgeon.

The network is described as data (``describe.py``): the stock class that its config builds, what was cut away, the
modules that surgery put in, their hooks. The code in the folder is the sources of ``surgeon.nn`` with a small builder
(``code.py``, ``modeling_grafted.py``): it trains, saves and loads like any network of transformers.
"""
