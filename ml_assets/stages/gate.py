"""The gate: each condition with what was observed and what was wanted, and the decision.

All conditions are judged, also after one has failed, so that a refusal tells everything at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ml_assets.stages.comparison import Comparison
from ml_assets.stages.metrics import Performance
from ml_assets.stages.slices import SliceResult
from ml_assets.use_case import Gate


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


def rival_reason(candidate: Performance, rival: Performance, name: str) -> Reason:
    """The candidate's average precision is above that of a simpler forecast; not below it, where both are of one family.

    A search may find that the simpler family is the best there is: then the candidate is the rival, and may go live.
    """
    ours, theirs = candidate.metrics["average_precision"], rival.metrics["average_precision"]
    same = candidate.family == rival.family
    return Reason(
        name=f"average_precision {'not below' if same else 'better than'} {name}",
        passed=ours >= theirs if same else ours > theirs,
        observed=f"{ours:.4f}",
        wanted=f"{'at least' if same else 'above'} {theirs:.4f}",
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


def _at_least(name: str, observed: float, minimum: float) -> Reason:
    return Reason(name=name, passed=observed >= minimum, observed=f"{observed:.4f}", wanted=f"at least {minimum:g}")


def _at_most(name: str, observed: float, maximum: float) -> Reason:
    return Reason(name=name, passed=observed <= maximum, observed=f"{observed:.4g}", wanted=f"at most {maximum:g}")
