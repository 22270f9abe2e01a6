"""Windows and latest values against the definition, written as a loop: `(known_at, id) <= (t, event id)` and `(t - window, t]`."""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.stages.windows import Int64Array, Known, Timeline, ratio, span, trailing

MICROSECOND = timedelta(microseconds=1)
WINDOWS = tuple(MICROSECOND * count for count in (0, 1, 2, 5, 1000))
SMALL = settings(max_examples=150, deadline=None)


@dataclass(frozen=True, kw_only=True)
class World:
    """Facts `(known_at, id, entity, value)` and questions `(t, event id, entity)`."""

    facts: list[tuple[int, int, int, int]]
    questions: list[tuple[int, int, int]]

    @property
    def values(self) -> Int64Array:
        return np.array([fact[3] for fact in self.facts], dtype=np.int64)

    def known(self) -> Known:
        facts = np.array(self.facts, dtype=np.int64).reshape(-1, 4)
        asked = np.array(self.questions, dtype=np.int64).reshape(-1, 3)
        timeline = Timeline.of(known_at=facts[:, 0], fact_id=facts[:, 1], asked_at=asked[:, 0], asked_id=asked[:, 1])
        return Known.of(timeline, fact_entity=facts[:, 2], asked_entity=asked[:, 2])


# Five moments for up to 25 facts: most of them share one. Times lie on both sides of the epoch.
MOMENTS = st.integers(-2, 2)
ENTITIES = st.integers(-1, 2)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A fact has an id of its own, an event too; a fact and an event may share one (the event is a fact about itself)."""
    count, asked = draw(st.integers(0, 25)), draw(st.integers(0, 12))
    fact_ids = draw(st.permutations(range(25)))[:count]
    asked_ids = draw(st.permutations(range(25)))[:asked]
    facts = [(draw(MOMENTS), id, draw(ENTITIES), draw(st.integers(-(10**15), 10**15))) for id in fact_ids]
    return World(facts=facts, questions=[(draw(MOMENTS), id, draw(ENTITIES)) for id in asked_ids])


def counting(fact: tuple[int, int, int, int], question: tuple[int, int, int]) -> bool:
    return fact[2] == question[2] >= 0 and fact[:2] <= question[:2]


def by_hand(world: World, window: timedelta) -> tuple[list[int], list[int]]:
    width = window // MICROSECOND
    inside = [
        [fact[3] for fact in world.facts if counting(fact, question) and fact[0] > question[0] - width]
        for question in world.questions
    ]
    return [len(values) for values in inside], [sum(values) for values in inside]


def latest_by_hand(world: World, ago: timedelta) -> list[int]:
    """Without `ago` ties are decided by id; so long ago everything at that moment was known."""
    found = []
    for question in world.questions:
        until = question[0] - ago // MICROSECOND
        seen = [
            (fact[:2], index)
            for index, fact in enumerate(world.facts)
            if fact[2] == question[2] >= 0 and (fact[0] <= until if ago else counting(fact, question))
        ]
        found.append(max(seen)[1] if seen else -1)
    return found


@given(worlds())
@SMALL
def test_trailing_windows_are_as_defined(world: World) -> None:
    answers = trailing(world.known(), (world.values,), WINDOWS)

    assert list(answers) == list(WINDOWS)
    for window, (count, total) in answers.items():
        assert (count.tolist(), total.tolist()) == by_hand(world, window), window
        assert count.dtype == total.dtype == np.int64


@given(worlds(), st.sampled_from(WINDOWS))
@SMALL
def test_the_latest_fact_is_as_defined(world: World, ago: timedelta) -> None:
    assert world.known().latest(ago).tolist() == latest_by_hand(world, ago)


@given(worlds(), st.randoms(use_true_random=False))
@SMALL
def test_neither_order_of_facts_nor_of_questions_matters(world: World, random: "np.random.Generator") -> None:
    facts, questions = list(range(len(world.facts))), list(range(len(world.questions)))
    random.shuffle(facts)
    random.shuffle(questions)
    turned = World(facts=[world.facts[index] for index in facts], questions=[world.questions[index] for index in questions])

    before, after = trailing(world.known(), (world.values,), WINDOWS), trailing(turned.known(), (turned.values,), WINDOWS)
    latest, latest_turned = world.known().latest(), turned.known().latest()

    for window in WINDOWS:
        for one, other in zip(before[window], after[window], strict=True):
            assert one[questions].tolist() == other.tolist()
    assert latest[questions].tolist() == [facts[index] if index >= 0 else -1 for index in latest_turned]


@given(worlds())
@SMALL
def test_one_question_alone_is_answered_as_among_many(world: World) -> None:
    together = trailing(world.known(), (world.values,), WINDOWS)

    for position, question in enumerate(world.questions):
        alone = World(facts=world.facts, questions=[question])
        for window, (count, total) in trailing(alone.known(), (alone.values,), WINDOWS).items():
            assert (count[0], total[0]) == (together[window][0][position], together[window][1][position])


def test_a_thousand_facts_at_one_moment_are_told_apart_by_id() -> None:
    random = np.random.default_rng(1)
    ids = random.permutation(1000)
    world = World(facts=[(0, int(id), 0, 1) for id in ids], questions=[(0, asked, 0) for asked in (-1, 0, 499, 999)])

    count, _ = trailing(world.known(), (world.values,), (MICROSECOND,))[MICROSECOND]

    assert count.tolist() == [0, 1, 500, 1000]
    assert [int(ids[index]) for index in world.known().latest()[1:]] == [0, 499, 999]
    assert world.known().latest()[0] == -1


def test_the_window_leaves_out_its_first_moment_and_keeps_its_last() -> None:
    world = World(facts=[(0, 1, 0, 10), (5, 2, 0, 100)], questions=[(5, 2, 0), (10, 3, 0), (4, 4, 0)])

    count, total = trailing(world.known(), (world.values,), (5 * MICROSECOND,))[5 * MICROSECOND]

    assert count.tolist() == [1, 0, 1]
    assert total.tolist() == [100, 0, 10]


def test_the_event_itself_counts_but_not_one_of_a_later_id_at_the_same_moment() -> None:
    world = World(facts=[(7, 3, 0, 1), (7, 4, 0, 1)], questions=[(7, 2, 0), (7, 3, 0), (7, 4, 0)])

    count, _ = trailing(world.known(), (world.values,), (MICROSECOND,))[MICROSECOND]

    assert count.tolist() == [0, 1, 2]


@pytest.mark.parametrize("entity", [-1, 7], ids=["missing", "never seen"])
def test_nothing_is_known_about_an_entity_that_is_missing_or_was_never_seen(entity: int) -> None:
    world = World(facts=[(0, 0, 0, 5), (0, 1, -1, 5)], questions=[(9, 9, entity)])

    assert [answer.tolist() for answer in trailing(world.known(), (world.values,), WINDOWS)[WINDOWS[-1]]] == [[0], [0]]
    assert world.known().latest().tolist() == [-1]


@pytest.mark.parametrize("world", [World(facts=[], questions=[]), World(facts=[(0, 0, 0, 1)], questions=[])], ids=str)
def test_no_questions_have_no_answers(world: World) -> None:
    count, total = trailing(world.known(), (world.values,), WINDOWS)[WINDOWS[1]]

    assert len(count) == len(total) == len(world.known().latest()) == 0


def test_no_facts_are_counted_as_none() -> None:
    world = World(facts=[], questions=[(0, 0, 0), (1, 1, -1)])

    assert trailing(world.known(), (world.values,), WINDOWS)[WINDOWS[1]][0].tolist() == [0, 0]
    assert world.known().latest(MICROSECOND).tolist() == [-1, -1]


def test_sums_are_exact_where_floats_would_round() -> None:
    large = 2**53
    world = World(facts=[(0, 0, 0, large), (1, 1, 0, 1), (2, 2, 1, large)], questions=[(5, 9, 0)])

    assert trailing(world.known(), (world.values,), (MICROSECOND * 10,))[MICROSECOND * 10][1].tolist() == [large + 1]


def test_a_mean_over_nothing_is_undefined() -> None:
    answer = ratio(np.array([3, 0, 5]), np.array([2, 0, 0]))

    assert answer[0] == 1.5
    assert np.isnan(answer[1:]).all()


@given(worlds(), st.sampled_from(WINDOWS))
@SMALL
def test_the_span_is_the_age_of_the_oldest_fact_in_the_window(world: World, window: timedelta) -> None:
    width = window // MICROSECOND
    oldest = [
        max(
            (question[0] - fact[0] for fact in world.facts if counting(fact, question) and fact[0] > question[0] - width),
            default=-1,
        )
        for question in world.questions
    ]

    assert span(world.known(), (window,))[window].tolist() == oldest


@given(worlds())
@SMALL
def test_without_itself_the_latest_is_the_one_before_the_fact_of_the_same_time_and_id(world: World) -> None:
    """A fact of another entity, or of the same one at the same moment with another id, is not the event's own."""
    others = []
    for question in world.questions:
        seen = [(fact[:2], at) for at, fact in enumerate(world.facts) if counting(fact, question) and fact[:2] != question[:2]]
        others.append(max(seen)[1] if seen else -1)

    assert world.known().latest(itself=False).tolist() == others
