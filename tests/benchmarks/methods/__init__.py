"""The methods of transfer learning, measured: each module here runs recipes of ``recipes/`` and says what they show.

    PYTHONPATH=tests/benchmarks python -m methods [METHOD ...]

A module of a method has

- ``TITLE``: its heading in the table;
- ``RECIPES``: the files of ``recipes/`` that it runs;
- ``run(seed, folder) -> dict[str, float]``: named numbers, in percent, of one seed; ``folder`` is scratch for it.
  A name with `` | `` is a row and a column of the table: ``"fine-tuning | n = 10"``;
- ``CLAIMS``: what should hold, see :class:`methods.claims.Claim`;
- optionally ``FIRST``, the first of its seeds that are reported, where it is not 100: as settings have been changed
  after those from 100 on had been looked at;
- optionally ``NOTE``, a paragraph above its table, and ``pictures(seeds) -> dict[str, str]``, SVG texts by file name,
  of every seed's numbers.

The seeds that are reported (100, 101, …) are never those that settings were chosen on (0 to 9).
"""
