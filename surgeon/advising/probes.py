"""Score the features of each site for new labels: with LogME and with a cross-validated linear probe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from surgeon.errors import TrainingError

Array = NDArray[np.float64]

STRENGTHS = tuple(10.0**exponent for exponent in range(-3, 5))
"""Ridge strengths of the probe, chosen by leave-one-out on each training fold."""
FOLDS = 5
ROUNDS = 100
TOLERANCE = 1e-5
WHOLE = 1e12
"""The limit of LogME's precisions: features that predict the labels exactly would have zero noise."""


@dataclass(frozen=True)
class Labels:
    """The labels to score features with.

    Attributes:
        values: ``(samples,)`` class numbers, or ``(samples, values)`` real numbers.
        classes: The number of classes that occur; 0 for values.
    """

    values: NDArray[np.int64] | Array
    classes: int

    @property
    def targets(self) -> Array:
        """``(samples, columns)``: one 0/1 column per class, or the values standardised to mean 0, deviation 1."""
        if self.classes:
            return np.asarray(self.values[:, None] == np.unique(self.values), np.float64)
        from sklearn.preprocessing import StandardScaler

        return np.asarray(StandardScaler().fit_transform(np.asarray(self.values, np.float64)))

    @property
    def floor(self) -> float:
        """The score of a constant guess: the share of the most frequent class, or an R² of 0."""
        return float(np.unique(self.values, return_counts=True)[1].max() / len(self.values)) if self.classes else 0.0

    @property
    def smallest(self) -> int:
        """The number of samples of the rarest class; of all samples, for values."""
        return int(np.unique(self.values, return_counts=True)[1].min()) if self.classes else len(self.values)


def logme(features: Array, targets: Array) -> float:
    """Compute the logarithm of the maximum evidence per sample and column (You et al. 2021).

    It says how likely the targets are under a linear model of the features with its weights integrated out, so wide
    features gain nothing from their width. The precisions α of the weights and β of the noise are found by the
    fixed-point iteration of MacKay (1992).

    Shapes: features ``(samples, width)``, targets ``(samples, columns)``.
    """
    n, width = features.shape
    u, s, _ = np.linalg.svd(features, full_matrices=False)
    squares = s**2
    total = 0.0
    for y in targets.T:
        z = u.T @ y
        outside = max(0.0, float(y @ y - z @ z))
        alpha = beta = 1.0
        for _ in range(ROUNDS):
            shrunk = alpha + beta * squares
            mean = beta * s * z / shrunk
            rest = float(((alpha * z / shrunk) ** 2).sum()) + outside
            gamma = float((beta * squares / shrunk).sum())
            moved = min(gamma / max(float(mean @ mean), 1 / WHOLE), WHOLE)
            noise = min(max(n - gamma, 1e-9) / max(rest, 1 / WHOLE), WHOLE)
            still = abs(moved - alpha) <= TOLERANCE * alpha and abs(noise - beta) <= TOLERANCE * beta
            alpha, beta = moved, noise
            if still:
                break
        shrunk = alpha + beta * squares
        mean = beta * s * z / shrunk
        rest = float(((alpha * z / shrunk) ** 2).sum()) + outside
        evidence = n / 2 * np.log(beta) + width / 2 * np.log(alpha) - n / 2 * np.log(2 * np.pi)
        evidence -= beta / 2 * rest + alpha / 2 * float(mean @ mean)
        evidence -= (np.log(shrunk).sum() + (width - len(s)) * np.log(alpha)) / 2
        total += float(evidence) / n
    return total / int(targets.shape[1])


def probe(features: Array, labels: Labels, seed: int = 0) -> Array:
    """Compute the score of a linear probe (Alain & Bengio 2016) on each held-out fold, ``(folds,)``.

    The probe is a ridge on standardised features; leave-one-out on the training fold chooses its strength. The score is
    accuracy, or R² for values. The folds depend only on the labels and the seed, so the scores of two sites can be
    compared fold by fold.

    Shapes: features ``(samples, width)``.

    Raises:
        TrainingError: There are too few samples to hold some out.
    """
    from sklearn.linear_model import RidgeClassifierCV, RidgeCV
    from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = min(FOLDS, labels.smallest)
    if folds < 2 or (labels.classes == 1):
        problem = "a class has a single labelled sample" if labels.classes > 1 else "there is only one class"
        raise TrainingError(
            f"the features cannot be scored: {problem}",
            where="train.data",
            hint="at least two classes with two labelled samples each, or two samples with values, are needed",
        )
    if labels.classes:
        parts = StratifiedKFold(folds, shuffle=True, random_state=seed)
        model = make_pipeline(StandardScaler(), RidgeClassifierCV(STRENGTHS))
    else:
        parts = KFold(folds, shuffle=True, random_state=seed)
        model = make_pipeline(StandardScaler(), RidgeCV(STRENGTHS))
    values = labels.values if labels.classes else labels.targets
    return np.asarray(cross_val_score(model, features, values, cv=parts), np.float64)
