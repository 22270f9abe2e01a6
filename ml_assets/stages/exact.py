"""Sums that are exact, and means and standard deviations that are correctly rounded, of any finite numbers.

Belongs here: arithmetic. Does not: which numbers lie in a window (`moments`, `online_features`), what is asked of them (`features`).

A finite float is a whole number times a power of two, so a sum of floats is one of whole numbers, which has no order and no rounding. An
answer is the float nearest to the exact quotient, or to the exact root of it, ties to even: it depends on the numbers in its window
alone, whatever else is computed beside it, and in whatever way. Whole numbers are kept in one 64-bit number where sums fit, else in limbs
of `BITS`; answers are computed in pairs of floats (Dekker, 1971), tested (Ziv, 1991), and those few that the test leaves open, one in
some 2**40, are computed again in whole numbers of Python.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

Int64Array = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Limbs = tuple[npt.NDArray[Any], ...]
"""A whole number at each place: the sum of `limbs[k] << (BITS * k)`. A single limb may hold more bits than `BITS`, or Python's numbers."""

BITS = 28
"""Of a limb: products of two, and sums of 2**31 of them, fit into 64 bits."""
MOST_LIMBS = 8
"""Numbers that need more, some 50 orders of magnitude apart, are left to Python."""
MASK, HALF = (1 << BITS) - 1, 1 << BITS
FITS = 1 << 62
"""What is less is exact in 64 bits, with a bit to spare."""
EXACT_FLOAT = 1 << 53
EXACT_LIMBS = 3
"""So many fit into a pair of floats."""
FEW = 16
"""So many standard deviations take Python as long as some thirty calls of numpy take."""
_SPLIT = float((1 << 27) + 1)
_UNSURE = 2.0**-40
_NORMAL = 2.0**-1021
_MOST_TO_MULTIPLY = 1 << 26


# Numbers ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Numbers:
    """Numbers as whole numbers times `2**exponent`; none is greater than `largest`, whatever its sign."""

    limbs: Limbs
    exponent: int
    largest: int

    def summands(self, most: int) -> Limbs:
        """What to sum for sums of up to so many of these numbers."""
        return self.limbs if self.largest * most < FITS else _digits(self.limbs)

    def squares(self, most: int) -> Limbs:
        """What to sum for sums of up to so many of their squares."""
        if self.largest * self.largest * most < FITS:
            return (self.limbs[0] * self.limbs[0],)
        return _carried(_squared(_digits(self.limbs)))


def numbers(values: npt.NDArray[Any]) -> Numbers | None:
    """Finite numbers, shape (n,), as whole numbers; None where they need more than `MOST_LIMBS`."""
    if values.dtype.kind in "iub":
        whole = values.astype(np.int64)
        return Numbers(limbs=(whole,), exponent=0, largest=_largest(whole))
    if (largest := float(np.abs(values).max(initial=0.0))) < FITS and ((whole := values.astype(np.int64)) == values).all():
        return Numbers(limbs=(whole,), exponent=0, largest=int(largest))
    lowest, bits = _range_of_bits(values)
    if bits > BITS * MOST_LIMBS:
        return None
    scaled = np.ldexp(values, -lowest)
    limbs = (scaled.astype(np.int64),) if bits <= 62 else _limbs_of(scaled, -(-bits // BITS))
    return Numbers(limbs=limbs, exponent=lowest, largest=1 << bits)


def integers(values: npt.NDArray[Any]) -> tuple[list[int], int]:
    """Finite numbers as whole numbers of Python, and the power of two that each is multiplied by."""
    if values.dtype.kind in "iub":
        return [int(value) for value in values.tolist()], 0
    fractions, exponents = np.frexp(values)
    lowest = int(exponents[values != 0].min(initial=0)) - 53
    wholes = np.ldexp(fractions, 53).astype(np.int64).tolist()
    return [whole << (at - 53 - lowest) if whole else 0 for whole, at in zip(wholes, exponents.tolist(), strict=True)], lowest


def at_least(values: npt.NDArray[Any], bound: float) -> Int64Array:
    """1 where a number is not less than the bound, else 0: compared as numbers, not as floats next to them."""
    limit: float = bound
    if values.dtype.kind == "f":
        limit = float(bound)
        limit = math.nextafter(limit, math.inf) if limit < bound else limit
    elif isinstance(bound, float):
        limit = math.ceil(bound)
    return (values >= limit).astype(np.int64)


def differences(later: npt.NDArray[Any], earlier: npt.NDArray[Any]) -> FloatArray:
    """`later - earlier`, correctly rounded."""
    if later.dtype.kind not in "iu":
        return np.asarray(later.astype(np.float64) - earlier.astype(np.float64))
    # The halves are exact as floats, and one addition rounds once; in 64 bits the difference could wrap.
    high, low = ((later >> 32) - (earlier >> 32)), ((later & 0xFFFFFFFF) - (earlier & 0xFFFFFFFF))
    return np.asarray(high.astype(np.float64) * 2.0**32 + low.astype(np.float64))


def _largest(whole: Int64Array) -> int:
    """Of what has no absolute value in 64 bits, too."""
    return max(abs(int(whole.min(initial=0))), abs(int(whole.max(initial=0))))


def _range_of_bits(values: FloatArray) -> tuple[int, int]:
    """Power of two of the lowest bit that any value has, and how many bits there are from it to the highest of all."""
    fractions, exponents = np.frexp(values[values != 0])
    wholes = np.ldexp(fractions, 53).astype(np.int64)
    lowest = exponents - 54 + np.frexp((wholes & -wholes).astype(np.float64))[1]
    return int(lowest.min()), int(exponents.max() - lowest.min())


def _limbs_of(scaled: FloatArray, count: int) -> Limbs:
    """Limbs of floats that are whole, from the top; each has the sign of its number."""
    limbs = []
    for place in reversed(range(count)):
        digit = np.trunc(scaled * 2.0 ** (-BITS * place))
        scaled = scaled - digit * 2.0 ** (BITS * place)
        limbs.append(digit.astype(np.int64))
    return tuple(reversed(limbs))


# Sums -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """Sums of numbers and of their squares at each place, exact: `first * 2**exponent`, and `second * 2**(2 * exponent)`."""

    count: Int64Array
    first: Limbs
    second: Limbs = ()
    exponent: int = 0
    reach: int = FITS
    """No sum of the whole numbers is greater, whatever its sign; only asked where `first` is one limb."""

    def total(self) -> FloatArray:
        """The sum of the numbers, 0 of none.

        Raises:
            OverflowError: it is greater than any float.
        """
        if self._in_python:
            return self._in_turn(_total, of_none=0.0)
        limbs = self._carried_first()
        answer, low = _pair(limbs)
        certain = (answer == answer + low * (1 - _UNSURE)) & (answer == answer + low * (1 + _UNSURE))
        return self._settled(answer, certain | (len(limbs) <= EXACT_LIMBS), _total)

    def mean(self) -> FloatArray:
        """The mean of the numbers, nan of none."""
        if self._in_python:
            return self._in_turn(_mean, of_none=math.nan)
        if len(self.first) == 1 and not self.exponent and (self.reach <= EXACT_FLOAT or self._within(EXACT_FLOAT)):
            with np.errstate(invalid="ignore"):
                mean: FloatArray = self.first[0] / self.count  # of two exact floats: rounded once
            np.copyto(mean, np.nan, where=self.count == 0)  # 0 / 0 is a nan of other bits
            return mean
        limbs = self._carried_first()
        answer, certain = _divided(*_pair(limbs), self.count, exact=len(limbs) <= EXACT_LIMBS)
        return self._settled(answer, certain, _mean)

    def std(self) -> FloatArray:
        """The standard deviation of the numbers (of the population), nan of none."""
        if self._in_python or self.count.size <= FEW:
            return self._in_turn(standard_deviation, of_none=math.nan)
        high, low = _pair(self._spread())
        with np.errstate(invalid="ignore"):
            answer, certain = _divided(*_root(high, low), self.count, exact=False)
        alike = (high == 0) & (self.count > 0)
        answer[alike], certain[alike] = 0.0, True
        return self._settled(answer, certain, standard_deviation)

    @property
    def _in_python(self) -> bool:
        return self.first[0].dtype == object

    def _carried_first(self) -> Limbs:
        return self.first if len(self.first) == 1 else _carried(self.first)

    def _spread(self) -> Limbs:
        """`count * second - first**2`: the variance times the square of the count, a whole number and not negative."""
        if len(self.first) == len(self.second) == 1:
            [first], [second] = self.first, self.second
            if float((self.count * second.astype(np.float64)).max(initial=0.0)) < FITS:
                return (self.count * second - first * first,)
        square, many = _squared(_carried(self.first)), [self.count * limb for limb in _carried(self.second)]
        nothing = np.zeros_like(self.count)
        return _carried([left - right for left, right in zip_longest(many, square, fillvalue=nothing)])

    def _within(self, limit: int) -> bool:
        return -limit <= self.first[0].min(initial=0) and bool(self.first[0].max(initial=0) <= limit)

    def _settled(self, answer: FloatArray, certain: npt.NDArray[np.bool_], again: "Moment") -> FloatArray:
        """Answers about the whole numbers as those about the numbers, and those that are not certain computed again."""
        if self.exponent:
            with np.errstate(over="ignore", under="ignore"):
                scaled = np.ldexp(answer, self.exponent)
            certain = certain & ((np.abs(scaled) >= _NORMAL) & np.isfinite(scaled) | (answer == 0))
            answer = scaled
        unsure = ~certain & (self.count > 0)
        if unsure.any():
            count, *limbs = (of[unsure] for of in (self.count, *self.first, *self.second))
            first, second = tuple(limbs[: len(self.first)]), tuple(limbs[len(self.first) :])
            chosen = Sums(count=count, first=first, second=second, exponent=self.exponent)
            answer[unsure] = chosen._in_turn(again, of_none=0.0)
        return answer

    def _in_turn(self, moment: "Moment", *, of_none: float) -> FloatArray:
        """Answers in numbers of Python."""
        whole = zip(self.count.ravel().tolist(), _integers(self.first, self.count), _integers(self.second, self.count), strict=True)
        answers = [moment(count, first, second, self.exponent) if count else of_none for count, first, second in whole]
        return np.array(answers, dtype=np.float64).reshape(self.count.shape)


Moment = Callable[[int, int, int, int], float]
"""Of a count, a sum, a sum of squares and an exponent as in `Sums`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningSums:
    """Sums of the first 0, 1, … n numbers and of their squares, as Python's numbers, which have any length."""

    first: npt.NDArray[np.object_]
    second: npt.NDArray[np.object_]
    exponent: int

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> "RunningSums":
        """Of finite numbers, shape (n,)."""
        whole, exponent = integers(values)
        first, second = (
            np.array([*accumulate(each, initial=0)], dtype=object) for each in (whole, [value * value for value in whole])
        )
        return cls(first=first, second=second, exponent=exponent)

    def between(self, starts: Int64Array, ends: Int64Array) -> Sums:
        """Of the numbers from each start to before each end."""
        first, second = (of[ends] - of[starts] for of in (self.first, self.second))
        return Sums(count=ends - starts, first=(first,), second=(second,), exponent=self.exponent)


def quotient(numerator: int, denominator: int, exponent: int) -> float:
    """`numerator / denominator * 2**exponent`, correctly rounded, as Python divides whole numbers.

    Raises:
        OverflowError: it is greater than any float.
    """
    return (numerator << exponent) / denominator if exponent > 0 else numerator / (denominator << -exponent)


def _total(_count: int, first: int, _second: int, exponent: int) -> float:
    return quotient(first, 1, exponent)


def _mean(count: int, first: int, _second: int, exponent: int) -> float:
    return quotient(first, count, exponent)


def standard_deviation(count: int, first: int, second: int, exponent: int) -> float:
    """Of numbers by how many they are, their sum and that of their squares as in `Sums`; correctly rounded."""
    spread = count * second - first * first
    if exponent < 0:
        return _root_of_quotient(spread, (count * count) << (-2 * exponent))
    return _root_of_quotient(spread << (2 * exponent), count * count)


def _root_of_quotient(numerator: int, denominator: int) -> float:
    """The root of a fraction, correctly rounded: a whole number of 54 bits or more, its last one odd unless it is exact, rounds alike."""
    shift = (numerator.bit_length() - denominator.bit_length() - 109) // 2
    if shift >= 0:
        denominator <<= 2 * shift
    else:
        numerator <<= -2 * shift
    root = math.isqrt(numerator // denominator)
    root |= root * root * denominator != numerator
    return quotient(root, 1, shift)


# Limbs ------------------------------------------------------------------------------------------------------------------------


def _digits(limbs: Limbs) -> Limbs:
    """Limbs of numbers, small enough to be multiplied."""
    return _carried(limbs) if len(limbs) == 1 else limbs


def _carried(limbs: Sequence[Int64Array]) -> Limbs:
    """The same numbers with limbs from 0 to `2**BITS`, and the last one up to that with the sign of the number."""
    carried, carry = [], np.zeros_like(limbs[0])
    for limb in limbs:
        carry = carry + limb
        carried.append(carry & MASK)
        carry = carry >> BITS
    while ((carry + HALF) >> (BITS + 1)).any():
        carried.append(carry & MASK)
        carry = carry >> BITS
    return (*carried, carry)


def _squared(limbs: Limbs) -> list[Int64Array]:
    products = [np.zeros_like(limbs[0]) for _ in range(2 * len(limbs) - 1)]
    for place, limb in enumerate(limbs):
        products[2 * place] += limb * limb
        for other in range(place):
            products[place + other] += 2 * limb * limbs[other]
    return products


def _integers(limbs: Limbs, like: Int64Array) -> list[int]:
    """As numbers of Python, one after the other; 0 without limbs."""
    if not limbs:
        return [0] * like.size
    whole: list[int] = limbs[0].ravel().tolist()
    for place, limb in enumerate(limbs[1:], start=1):
        whole = [part + (digit << (BITS * place)) for part, digit in zip(whole, limb.ravel().tolist(), strict=True)]
    return whole


# Pairs of floats --------------------------------------------------------------------------------------------------------------


def _pair(limbs: Limbs) -> tuple[FloatArray, FloatArray]:
    """Numbers as sums of two floats, the first as near as a float can be; exact up to three limbs, to 2**-100 with more."""
    high = limbs[-1].astype(np.float64)
    if len(limbs) == 1:
        return high, (limbs[0] - high.astype(np.int64)).astype(np.float64)
    low = np.zeros_like(high)
    for limb in limbs[-2::-1]:
        low = low * 2.0**BITS + limb
        high = high * 2.0**BITS
        total = high + low
        low = low - (total - high)
        high = total
    return high, low


def _halves(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two floats of 26 bits, whose products are exact (Veltkamp, 1968)."""
    many = _SPLIT * values
    high = many - (many - values)
    return high, values - high


def _root(high: FloatArray, low: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The root of a sum of two floats as one, to 2**-100."""
    root = np.sqrt(high)
    above, below = _halves(root)
    rest = ((high - above * above) - 2 * above * below) - below * below + low
    return root, rest / (2 * root)


def _divided(high: FloatArray, low: FloatArray, count: Int64Array, *, exact: bool) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """A sum of two floats divided by a count, and whether it is certain that the answer is correctly rounded.

    Args:
        exact: the sum is what is to be divided, and not only to 2**-100: then ties are certain, too.
    """
    divisor = count.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        first = high / divisor
        above, below = _halves(first)
        rest = ((high - above * divisor) - below * divisor) + low
        correction = rest / divisor
        answer = first + correction
        certain = (answer == first + correction * (1 - _UNSURE)) & (answer == first + correction * (1 + _UNSURE))
        if exact:
            certain |= correction * divisor == rest
    np.copyto(answer, np.nan, where=count == 0)  # 0 / 0 is a nan of other bits
    return answer, certain & (count < _MOST_TO_MULTIPLY)
