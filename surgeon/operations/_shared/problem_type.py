"""Name the kinds of labels that a head may predict."""

from __future__ import annotations

from typing import Literal

ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
