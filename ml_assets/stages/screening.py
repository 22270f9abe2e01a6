"""Single features that are too good to be true: how well each one alone separates the classes on the training days.

A column that is filled in after the event, or that spells the label another way, gives a perfect model that is worth nothing. So every
feature is judged by itself, before anything is trained: its bins get their rates from every other day, and are judged on the days
between, and the other way round. Bins are values (texts, and numbers with few of them) and the leaves of a decision tree (numbers), so
that a feature need not rise with the label; a missing value is a bin of its own.

Belongs here: the figures. Does not: which of them keep a candidate from going live (`gate`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn import config_context
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score
from sklearn.tree import DecisionTreeClassifier

from ml_assets.stages.adapters import adapter_of
from ml_assets.stages.inputs import FloatArray, IntArray, numbers
from ml_assets.use_case import Day, Screening, UseCase

FILE = "screening.json"
"""In the package of a candidate."""
MAX_ROWS = 5_000
"""Of each class, evenly spaced from first to last: 76 features of 470,000 rows take 2 s, and an AUC moves by less than 0.005."""
MAX_VALUES = 256
"""A number with more distinct values is binned by the tree alone."""
LEAVES, LEAF_ROWS = 32, 5
FREQUENT, FREQUENT_SHARE = 10, 0.002
"""Rows, and share of them, from which on a number has a bin of its own beside the leaves."""
MIN_HALF = 5
"""Rows of each class in each half of the days; with fewer, halves are of rows and not of days."""
PRECISION = 0.99
"""From here on a value determines the label. At most 1 - PRECISION of the other class may have it, whatever its share."""
COMMON = 0.9
"""Nothing is said about the determination of a class with a larger share: nearly every value has hardly another."""
DETERMINES = 0.1
"""A smaller share of a class that a feature determines is not worth a word."""
REPORTED = 10
"""Features in a report, beside those that are too good."""
SHOWN, SHOWN_SHARE = 3, 0.02
"""Of a feature's values of one class alone: so many are named, those that hold this share of the class or more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureAlone:
    """How well one feature separates the classes by itself. Shares are of the rows of a class, figures between 0 and 1."""

    feature: str
    auc: float
    """ROC AUC; 0.5 for a feature that says nothing, never below by more than chance."""
    average_precision: float
    positives_determined: float
    negatives_determined: float
    missing_auc: float
    """ROC AUC of whether it is missing, in the better direction; 0.5 where it never or always is."""
    shown: str = ""
    """Its values, or ranges of them, that are of one class alone; empty of a feature that is not among the first."""

    @property
    def determined(self) -> float:
        """The larger of the two shares."""
        return max(self.positives_determined, self.negatives_determined)

    def exceeds(self, screening: Screening) -> bool:
        """Whether it is at or above one of the limits."""
        return self.auc >= screening.max_auc or self.determined >= screening.max_determined

    def __str__(self) -> str:
        parts = [f"AUC {self.auc:.3f}", f"average precision {self.average_precision:.3f}"]
        if self.positives_determined >= DETERMINES:
            parts.append(f"determines {self.positives_determined:.0%} of the positives")
        if self.negatives_determined >= DETERMINES:
            parts.append(f"determines {self.negatives_determined:.0%} of the negatives")
        return f"{self.feature}: {', '.join(parts)}{f' ({self.shown})' if self.shown else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ScreeningResult:
    """Every feature of a model alone, those that separate best first; `not_judged` says why there is none."""

    rows: int
    positives: int
    features: tuple[FeatureAlone, ...]
    not_judged: str = ""

    def suspects(self, screening: Screening) -> list[FeatureAlone]:
        """The features that separate the classes nearly alone."""
        return [each for each in self.features if each.exceeds(screening)]

    def strongest(self, screening: Screening) -> "ScreeningResult":
        """Without the features that are neither among the first `REPORTED` nor suspects."""
        features = tuple(each for place, each in enumerate(self.features) if place < REPORTED or each.exceeds(screening))
        return replace(self, features=features)

    def to_json(self) -> dict[str, Any]:
        """Plain values; `screening_from_json` is the inverse."""
        return asdict(self)


def screening_from_json(content: object) -> ScreeningResult:
    """Inverse of `ScreeningResult.to_json`."""
    return adapter_of(ScreeningResult).validate_python(content)


def screen(rows: pd.DataFrame, labels: FloatArray, days: Sequence[Day] | pd.Series, *, case: UseCase) -> ScreeningResult:
    """Each feature of the case's model alone. The same rows give the same figures.

    Args:
        rows: the feature columns by name, shape (n, …), in order of time.
        labels: 0 or 1, shape (n,).
        days: the key of each row's day, shape (n,).
    """
    positives, least = int(labels.sum()), case.gate.screening.minimum_rows
    if min(positives, len(labels) - positives) < least:
        reason = f"{positives:,} positives and {len(labels) - positives:,} negatives, {least} of each are needed"
        return ScreeningResult(rows=len(labels), positives=positives, features=(), not_judged=reason)
    chosen = _sample(labels)
    sample = _Sample.of(labels, chosen, np.asarray(days, dtype=str)[chosen])
    texts = set(case.features.categorical)
    part = rows[case.model_features].iloc[chosen]
    # Thousands of calls on small arrays: checking each takes as long again as what is asked.
    with config_context(assume_finite=True, skip_parameter_validation=True):
        found = [_alone(name, part, sample, text=name in texts) for name in case.model_features]
    ordered = sorted(found, key=lambda each: (-each.auc, -each.determined, each.feature))
    ordered = [
        replace(each, shown=_purest(part, sample, each.feature, text=each.feature in texts))
        if place < REPORTED or each.determined >= DETERMINES
        else each
        for place, each in enumerate(ordered)
    ]
    return ScreeningResult(rows=len(labels), positives=positives, features=tuple(ordered))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sample:
    """The rows that features are judged on: 0 or 1, how many rows each stands for, and whether it is of the first half."""

    labels: FloatArray
    weights: FloatArray
    first: npt.NDArray[np.bool_]

    @staticmethod
    def of(labels: FloatArray, chosen: IntArray, days: npt.NDArray[Any]) -> "_Sample":
        truth = labels[chosen]
        counts, sampled = (np.array([(each == 0).sum(), (each == 1).sum()], dtype=np.float64) for each in (labels, truth))
        first = np.unique(days, return_inverse=True)[1] % 2 == 0
        if min((truth[half] == label).sum() for half in (first, ~first) for label in (0, 1)) < MIN_HALF:
            first = np.zeros(len(truth), dtype=bool)
            for label in (0, 1):
                first[np.flatnonzero(truth == label)[::2]] = True
        return _Sample(labels=truth, weights=(counts / sampled)[truth.astype(np.int64)], first=first)


def _sample(labels: FloatArray) -> IntArray:
    of_class = [np.flatnonzero(labels == label) for label in (0, 1)]
    chosen = [rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_ROWS)).astype(np.int64)] for rows in of_class]
    return np.sort(np.concatenate(chosen))


def _alone(name: str, rows: pd.DataFrame, sample: _Sample, *, text: bool) -> FeatureAlone:
    values, missing = _column(rows, name, text=text)
    figures = [_figures(codes, sample) for codes in _binnings(values, missing, sample, text=text)]
    best = max(figures, key=lambda each: (each["auc"], max(each["positives_determined"], each["negatives_determined"])))
    by_missing = float(roc_auc_score(sample.labels, missing))
    return FeatureAlone(
        feature=name,
        auc=best["auc"],
        average_precision=best["average_precision"],
        positives_determined=best["positives_determined"],
        negatives_determined=best["negatives_determined"],
        missing_auc=max(by_missing, 1 - by_missing),
    )


def _column(rows: pd.DataFrame, name: str, *, text: bool) -> tuple[pd.Series, npt.NDArray[np.bool_]]:
    values = pd.Series(rows[name].to_numpy(dtype=object) if text else numbers(rows, name), dtype=object if text else np.float64)
    return values, values.isna().to_numpy()


def _binnings(
    values: pd.Series, missing: npt.NDArray[np.bool_], sample: _Sample, *, text: bool
) -> Iterator[tuple[IntArray, IntArray]]:
    """Ways to bin a feature: the bin of each row as learnt from the first half, and from the second."""
    by_value = np.asarray(pd.factorize(values, use_na_sentinel=True)[0], dtype=np.int64) + 1  # 0 is missing
    if text or by_value.max() <= MAX_VALUES:
        yield by_value, by_value
    if not text and by_value.max() > 1:
        number = values.to_numpy(dtype=np.float64)
        yield _leaves(number, missing, sample, sample.first), _leaves(number, missing, sample, ~sample.first)


def _leaves(number: FloatArray, missing: npt.NDArray[np.bool_], sample: _Sample, half: npt.NDArray[np.bool_]) -> IntArray:
    """The bin of each row: 0 is missing, one for each frequent value, and the leaves of a tree of one half for the others.

    A leaf reaches halfway to the next value of its half, and so would mix a value of one class alone with what lies beside it.
    """
    found = np.zeros(len(number), dtype=np.int64)
    values, place, count = np.unique(number[~missing], return_inverse=True, return_counts=True)
    own = count >= max(FREQUENT, FREQUENT_SHARE * len(number))
    found[~missing] = np.where(own[place], 1 + place, 0)
    rest = np.zeros(len(number), dtype=bool)
    rest[~missing] = ~own[place]
    found[rest] = len(values) + 1
    if (rest & half).any():
        # Trees compare in single precision: where that cannot tell all values apart, their ranks can.
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)
        exact = np.isfinite(single).all() and len(np.unique(single)) == len(values)
        column = (single if exact else np.arange(len(values), dtype=np.float32))[place][rest[~missing]][:, None]
        tree = DecisionTreeClassifier(max_leaf_nodes=LEAVES, min_samples_leaf=LEAF_ROWS, class_weight="balanced", random_state=0)
        tree.fit(column[half[rest]], sample.labels[rest & half])
        found[rest] = len(values) + 1 + tree.apply(column)
    return np.unique(found, return_inverse=True)[1] + (1 if not missing.any() else 0)


def _figures(codes: tuple[IntArray, IntArray], sample: _Sample) -> dict[str, float]:
    """The mean over both halves, each judged by the rates of the other."""
    halves = [_half(codes[0], sample, ~sample.first), _half(codes[1], sample, sample.first)]
    return {name: float(np.mean([half[name] for half in halves])) for name in halves[0]}


def _half(codes: IntArray, sample: _Sample, judged: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Figures of the judged rows by the rates of the others. A bin counts once for each class, with the rows of it as its weight."""
    learnt, ours = (_counts(codes, sample, rows) for rows in (~judged, judged))
    base = learnt[1].sum() / learnt.sum()
    rate = (learnt[1] + base) / (learnt.sum(axis=0) + 1)  # drawn towards the base rate as if by one row; a bin not seen has it
    truth, scores, weights = np.repeat([0, 1], len(rate)), np.concatenate([rate, rate]), np.concatenate([ours[0], ours[1]])
    return {
        "auc": float(roc_auc_score(truth, scores, sample_weight=weights)),
        "average_precision": min(1.0, float(average_precision_score(truth, scores, sample_weight=weights))),
        "positives_determined": _determined(truth, scores, weights),
        "negatives_determined": _determined(1 - truth, -scores, weights),
    }


def _determined(truth: IntArray, scores: FloatArray, weights: FloatArray) -> float:
    """The recall at a precision of `PRECISION`, 0 where more than 1 in 100 of the other class would be taken along."""
    ours, others = float(weights[truth == 1].sum()), float(weights[truth == 0].sum())
    if ours > COMMON * (ours + others):
        return 0.0
    precision, recall, _ = precision_recall_curve(truth, scores, sample_weight=weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        taken = np.where(recall > 0, recall * ours * (1 / precision - 1) / others, 0.0)
    return min(1.0, float(recall[(precision >= PRECISION) & (taken <= 1 - PRECISION)].max(initial=0.0)))


def _counts(codes: IntArray, sample: _Sample, rows: npt.NDArray[np.bool_]) -> FloatArray:
    """Rows of each bin, shape (2, bins): negatives, positives."""
    size = int(codes.max()) + 1
    return np.stack(
        [
            np.bincount(codes[chosen], sample.weights[chosen], minlength=size)
            for chosen in (rows & (sample.labels == label) for label in (0, 1))
        ]
    )


def _purest(rows: pd.DataFrame, sample: _Sample, name: str, *, text: bool) -> str:
    """The bins with most rows of one class alone, in words: 'positive where 3', 'negative where 0 to 2, missing'."""
    values, missing = _column(rows, name, text=text)
    by_value = np.asarray(pd.factorize(values, use_na_sentinel=True)[0], dtype=np.int64) + 1
    everything = np.ones(len(values), dtype=bool)
    few = text or by_value.max() <= MAX_VALUES
    codes = by_value if few else _leaves(values.to_numpy(dtype=np.float64), missing, sample, everything)
    counts = _counts(codes, sample, everything)
    rates = counts[1] / np.maximum(counts.sum(axis=0), 1e-9)
    words = []
    for label, pure in ((1, rates >= PRECISION), (0, rates <= 1 - PRECISION)):
        large = pure & (counts[label] >= SHOWN_SHARE * counts[label].sum())
        bins = [code for code in np.argsort(-counts[label], kind="stable").tolist() if large[code]]
        if bins:
            more = f" and {len(bins) - SHOWN} more" if len(bins) > SHOWN else ""
            named = ", ".join(_named(values[codes == code]) for code in bins[:SHOWN])
            words.append(f"{'positive' if label else 'negative'} where {named}{more}")
    return "; ".join(words) or "no value is of one class alone"


def _named(values: pd.Series) -> str:
    there = values.dropna()
    if there.empty:
        return "missing"
    if not pd.api.types.is_numeric_dtype(there):
        return repr(str(there.iloc[0])[:40])
    low, high = float(there.min()), float(there.max())
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
