"""The gate: each condition with what was observed and what was wanted, and the decision.

All conditions are judged, also after one has failed, so that a refusal tells everything at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ml_assets.stages.comparison import Comparison
from ml_assets.stages.inputs import FloatArray
from ml_assets.stages.metrics import Performance
from ml_assets.stages.screening import FeatureAlone, ScreeningResult
from ml_assets.stages.slices import SliceResult
from ml_assets.use_case import Gate

PERFECT = 1 - 1e-9
"""An average precision from here on is 1, up to rounding: nothing can be above it."""
SCREENED = "no feature separates the classes alone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """One condition of the gate."""

    name: str
    passed: bool
    observed: str
    wanted: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """Promoted, or not, and why. `champion_after` is the candidate if promoted, else the champion before."""

    promoted: bool
    reasons: tuple[Reason, ...]
    champion_before: str | None
    champion_after: str | None


def decide(reasons: Sequence[Reason], *, candidate_version: str, champion_version: str | None) -> Decision:
    """Promoted if every condition holds."""
    promoted = all(reason.passed for reason in reasons)
    return Decision(
        promoted=promoted,
        reasons=tuple(reasons),
        champion_before=champion_version,
        champion_after=candidate_version if promoted else champion_version,
    )


def floor_reasons(performance: Performance, floors: Mapping[str, float]) -> list[Reason]:
    """Each metric with a floor is at least that.

    Raises:
        ValueError: for a floor on a metric that is not measured.
    """
    unknown = sorted(set(floors) - set(performance.metrics))
    if unknown:
        raise ValueError(f"no such metric: {', '.join(unknown)}; measured are {', '.join(performance.metrics)}")
    return [_at_least(f"{name} floor", performance.metrics[name], minimum) for name, minimum in floors.items()]


def rival_reason(candidate: Performance, rival: Performance, name: str, *, margin: float = 0.0) -> Reason:
    """The candidate's average precision is above that of a simpler forecast; not below it, where both are of one family.

    With a margin it is not below by more than that.

    A search may find that the simpler family is the best there is: then the candidate is the rival, and may go live. Nothing is above
    a perfect rival: a candidate that is perfect, too, passes.
    """
    ours, theirs = candidate.metrics["average_precision"], rival.metrics["average_precision"]
    same, perfect = candidate.family == rival.family, theirs >= PERFECT
    observed, limit = _told_apart(ours, theirs - margin)
    if margin and not perfect:
        return Reason(
            name=f"average_precision not below {name} by more than {margin:g}",
            passed=ours >= theirs - margin,
            observed=observed,
            wanted=f"at least {limit}",
        )
    return Reason(
        name=f"average_precision {'not below' if same else 'better than'} {name}",
        passed=ours >= PERFECT if perfect else ours >= theirs if same else ours > theirs,
        observed=observed,
        wanted=f"{'at least' if same or perfect else 'above'} {limit}{', which is perfect' if perfect else ''}",
    )


def screening_reason(screening: ScreeningResult, gate: Gate) -> Reason:
    """No feature separates the classes alone, but those that the case allows to."""
    limits, suspects = gate.screening, screening.suspects(gate.screening)
    refused = [each for each in suspects if each.feature not in gate.allowed_alone]
    allowed = [each for each in suspects if each.feature in gate.allowed_alone]
    wanted = f"AUC of each alone under {limits.max_auc:g}, and under {limits.max_determined:.0%} of a class determined"
    if refused:
        names = ", ".join(repr(name) for name in sorted({*gate.allowed_alone, *(each.feature for each in refused)}))
        wanted += (
            "; a feature that is filled in after the event must go; one that is known when the event happens is allowed by "
            f"allowed_alone=({names},) in the case's Gate"
        )
    return Reason(name=SCREENED, passed=not refused, observed=_screened(screening, refused, allowed), wanted=wanted)


def _screened(screening: ScreeningResult, refused: Sequence[FeatureAlone], allowed: Sequence[FeatureAlone]) -> str:
    if refused:
        return "; ".join(map(str, refused))
    if screening.not_judged:
        return f"not judged: {screening.not_judged}"
    if allowed:
        return f"allowed: {'; '.join(map(str, allowed))}"
    best = screening.features[0]
    return f"at most {best.feature}: AUC {best.auc:.3f}, average precision {best.average_precision:.3f}"


def constant_reason(scores: FloatArray) -> Reason:
    """The scores of the holdout differ: a model that learnt nothing gives each event the same."""
    values = len(np.unique(scores))
    return Reason(
        name="scores differ between events",
        passed=values > 1,
        observed=f"{values:,} values" if values > 1 else f"{scores[0]:.4g} for each of {len(scores):,} events",
        wanted="2 values or more",
    )


def champion_reasons(comparison: Comparison, slices: Sequence[SliceResult], gate: Gate) -> list[Reason]:
    """No loss on average, little risk of one above the margin, and no slice much worse."""
    chance = comparison["chance_worse_than_margin"]
    return [
        _at_least("mean difference of average_precision to the champion", comparison["mean_difference"], 0.0),
        Reason(
            name=f"chance of being worse than the champion by more than {gate.margin:g}",
            passed=chance < gate.risk,
            observed=f"{chance:.4f}",
            wanted=f"under {gate.risk:g}",
        ),
        slice_reason(slices, gate),
    ]


def slice_reason(slices: Sequence[SliceResult], gate: Gate) -> Reason:
    """The worst slice against the champion, of those that must not be worse."""
    compared = [
        (found.difference, f"{found.column} {found.value}") for found in slices if found.required and found.difference is not None
    ]
    worst, where = min(compared, default=(0.0, "no slice decides"))
    return Reason(
        name="difference of average_precision on the worst slice",
        passed=all(found.passed for found in slices),
        observed=f"{worst:+.4f} ({where})",
        wanted=f"at least {-gate.slice_margin:+g}",
    )


def budget_reasons(*, megabytes: float, row_milliseconds: float, gate: Gate) -> list[Reason]:
    """Size of the package and time of a prediction."""
    return [
        _at_most("size of the model in MB", megabytes, gate.max_model_megabytes),
        _at_most("milliseconds to score one row", row_milliseconds, gate.max_row_milliseconds),
    ]


def _told_apart(ours: float, theirs: float) -> tuple[str, str]:
    """Both figures with four digits, or as many as tell them apart."""
    digits = next((digits for digits in range(4, 17) if f"{ours:.{digits}f}" != f"{theirs:.{digits}f}"), 4)
    return f"{ours:.{digits}f}", f"{theirs:.{digits}f}"


def _at_least(name: str, observed: float, minimum: float) -> Reason:
    return Reason(name=name, passed=observed >= minimum, observed=f"{observed:.4f}", wanted=f"at least {minimum:g}")


def _at_most(name: str, observed: float, maximum: float) -> Reason:
    return Reason(name=name, passed=observed <= maximum, observed=f"{observed:.4g}", wanted=f"at most {maximum:g}")
