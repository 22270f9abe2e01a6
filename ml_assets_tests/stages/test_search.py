"""A search judges recipes as production would, gives the same twice, and ends the same however often it was killed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightgbm as lgb
import numpy as np
import optuna
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from ml_assets.stages import search
from ml_assets.stages.inputs import matrix
from ml_assets.stages.search import Found, folds, search_recipe
from ml_assets.stages.sufficiency import CannotJudgeError
from ml_assets.stages.trials import Trial
from ml_assets.use_case import Range, Search, UseCase, day_range, shift

Events = Callable[..., Any]
FIRST, LAST = "2024-01-01", "2024-01-28"
SEARCH = Search(
    trials=9,
    folds=3,
    fold_days=5,
    gap_days=2,
    lightgbm=(
        Range(name="learning_rate", low=0.02, high=0.3, log=True),
        Range(name="num_leaves", low=3, high=31, log=True, whole=True),
        Range(name="min_data_in_leaf", low=5, high=60, whole=True),
        Range(name="scale_pos_weight", low=1.0, high=10.0, log=True),
    ),
    logistic=(Range(name="inverse_penalty", low=1e-4, high=10.0, log=True),),
    most_trees=40,
    patience=6,
)


def searching(case: UseCase, *, kept_negatives: float = 0.5, **changes: Any) -> UseCase:
    """The declared recipe learns too slowly, so that there is something to find."""
    parameters = {**case.training.parameters, "learning_rate": 0.03, "num_leaves": 4}
    training = replace(case.training, parameters=parameters, kept_negatives=kept_negatives, search=replace(SEARCH, **changes))
    return replace(case, training=training)


def found_in(rows: pd.DataFrame, labels: Any, case: UseCase, storage: str | None = None) -> Found:
    return search_recipe(rows, np.asarray(labels, dtype=float), rows["day"], case=case, storage=storage, name="a search")


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'trials.db'}"


@pytest.fixture(scope="module")
def rows(events: Events) -> tuple[pd.DataFrame, np.ndarray]:
    return events(FIRST, LAST, per_day=100)


@pytest.fixture(scope="module")
def found(rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase) -> Found:
    return found_in(*rows, searching(small_case))


def best_of(found: Found) -> Trial:
    return max((trial for trial in found.trials if trial.state == "complete"), key=lambda trial: trial.value or 0)


# Folds ------------------------------------------------------------------------------------------------------------------------


@st.composite
def days_and_searches(draw: Any) -> tuple[np.ndarray, Search]:
    """Rows of some days, with holes, and a search that fits into them."""
    declared = replace(SEARCH, folds=draw(st.integers(1, 4)), fold_days=draw(st.integers(1, 5)), gap_days=draw(st.integers(0, 5)))
    span = declared.folds * declared.fold_days + declared.gap_days + 1 + draw(st.integers(0, 10))
    every = day_range("2024-02-20", shift("2024-02-20", span - 1))
    # The first day, so that there is something to learn from, and the last of each fold.
    needed = {every[0], *every[-1 :: -declared.fold_days][: declared.folds]}
    counts = [draw(st.integers(1 if day in needed else 0, 3)) for day in every]
    return np.repeat(every, 2 * np.array(counts)), declared


def of_both_classes(days: Any) -> np.ndarray:
    """Labels of days that have two rows or more."""
    return np.arange(len(days)) % 2.0


@given(given_days=days_and_searches())
@settings(max_examples=200, deadline=None)
def test_a_fold_learns_from_everything_up_to_the_gap_and_from_nothing_later(given_days: tuple[np.ndarray, Search]) -> None:
    days, declared = given_days

    found = folds(days, of_both_classes(days), declared)

    assert len(found) == declared.folds
    for back, fold in zip(range(declared.folds - 1, -1, -1), found, strict=True):
        last = shift(str(days[-1]), -back * declared.fold_days)
        first = shift(last, 1 - declared.fold_days)
        before_the_gap = shift(first, -declared.gap_days - 1)
        assert fold.judged.tolist() == [row for row, day in enumerate(days) if first <= day <= last]
        assert fold.learned.tolist() == [row for row, day in enumerate(days) if day <= before_the_gap]


@given(given_days=days_and_searches())
@settings(max_examples=100, deadline=None)
def test_no_row_is_judged_twice_and_folds_go_forward(given_days: tuple[np.ndarray, Search]) -> None:
    days, declared = given_days
    found = folds(days, of_both_classes(days), declared)

    judged = np.concatenate([fold.judged for fold in found])
    assert (np.diff(judged) == 1).all()
    assert judged[-1] == len(days) - 1
    assert all(fold.learned.max() < fold.judged.min() for fold in found)


EVERY_DAY = np.repeat(day_range(FIRST, LAST), 2)
FOLDS = (("2024-01-14", "2024-01-18"), ("2024-01-19", "2024-01-23"), ("2024-01-24", "2024-01-28"))


@pytest.mark.parametrize(
    ("unfit", "one_class", "judged"),
    [
        ((), (), (0, 1, 2)),
        (day_range("2024-01-01", "2024-01-11"), (), (1, 2)),
        (day_range("2024-01-19", "2024-01-23"), (), (0, 2)),
        ((), day_range("2024-01-19", "2024-01-23"), (0, 2)),
        ((), day_range("2024-01-01", "2024-01-11"), (1, 2)),
    ],
)
def test_a_fold_without_rows_or_with_one_class_is_left_out(unfit: Any, one_class: Any, judged: tuple[int, ...]) -> None:
    days = EVERY_DAY[~np.isin(EVERY_DAY, unfit)]
    labels = np.where(np.isin(days, one_class), 0.0, of_both_classes(days))

    found = folds(days, labels, SEARCH)

    assert [(days[fold.judged[0]], days[fold.judged[-1]]) for fold in found] == [FOLDS[place] for place in judged]


def test_without_any_fold_of_both_classes_nothing_can_be_judged() -> None:
    days = EVERY_DAY[EVERY_DAY >= "2024-01-22"]
    with pytest.raises(
        CannotJudgeError, match=r"fold 2024-01-14 to 2024-01-18 has 0 rows to learn from .* declare fewer or shorter"
    ):
        folds(days, of_both_classes(days), SEARCH)
    with pytest.raises(CannotJudgeError, match=r"2024-01-24 to 2024-01-28 has 42 rows to learn from \(0 positives\) and 10 to be"):
        folds(EVERY_DAY, np.zeros(len(EVERY_DAY)), SEARCH)


def test_what_lies_in_the_gap_teaches_and_judges_nothing(rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase) -> None:
    frame, labels = rows
    case = searching(small_case, folds=1, trials=3)
    within = frame["day"].isin(["2024-01-22", "2024-01-23"])
    other = np.where(within, 1 - labels, labels)

    before, after = found_in(frame, labels, case), found_in(frame, other, case)

    assert after.trials == before.trials
    assert after.scores.tobytes() == before.scores.tobytes()
    day_before = frame["day"] == "2024-01-21"
    assert found_in(frame, np.where(day_before, 1 - labels, labels), case).trials != before.trials


def test_later_folds_do_not_change_what_earlier_ones_say(rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase) -> None:
    frame, labels = rows
    case = searching(small_case, trials=1)
    other = np.where(frame["day"] > "2024-01-23", 1 - labels, labels)

    before, after = (found_in(frame, each, case).trials[0].folds for each in (labels, other))

    assert before[:2] == after[:2]
    assert before[2] != after[2]


# Trials -----------------------------------------------------------------------------------------------------------------------


def test_the_same_seed_finds_the_same(found: Found, rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase) -> None:
    again = found_in(*rows, searching(small_case))

    assert len(again.trials) == 9
    assert again.trials == found.trials
    assert (again.family, again.training) == (found.family, found.training)
    assert again.scores.tobytes() == found.scores.tobytes()


def test_another_seed_tries_other_recipes_after_the_declared_ones_of_each_family(
    rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase
) -> None:
    case = searching(small_case, trials=4)
    other = replace(case, training=replace(case.training, seed=8))

    ours, theirs = found_in(*rows, case).trials, found_in(*rows, other).trials

    assert [trial.parameters for trial in ours[:2]] == [trial.parameters for trial in theirs[:2]]
    assert {trial.family for trial in ours[:2]} == {"lightgbm", "logistic"}
    assert all(mine.parameters != their.parameters for mine, their in zip(ours[2:], theirs[2:], strict=True))


def test_the_first_trial_is_the_declared_recipe(rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase) -> None:
    """`scale_pos_weight` is not declared, and LightGBM's default is 1."""
    first = found_in(*rows, searching(small_case, trials=1)).trials[0]

    assert first.family == "lightgbm"
    assert first.parameters == {
        "family": "lightgbm",
        "learning_rate": 0.03,
        "num_leaves": 4,
        "min_data_in_leaf": 20,
        "scale_pos_weight": 1.0,
    }


def test_the_first_trial_is_of_the_first_family(rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase) -> None:
    found = found_in(*rows, searching(small_case, trials=1, families=("logistic", "lightgbm")))

    assert found.trials[0].parameters == {"family": "logistic", "inverse_penalty": 1.0}
    assert found.trials[0].trees is None


def test_a_recipe_that_does_not_name_what_is_searched_cannot_begin(
    rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase
) -> None:
    case = searching(small_case, lightgbm=(*SEARCH.lightgbm, Range(name="lambda_l2", low=0.1, high=10)))

    with pytest.raises(ValueError, match="does not name lambda_l2"):
        found_in(*rows, case)


def test_a_recipe_outside_of_what_is_searched_cannot_begin(rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase) -> None:
    case = searching(small_case, lightgbm=(Range(name="num_leaves", low=8, high=63, whole=True),))

    with pytest.raises(ValueError, match="num_leaves is 4, searched from 8 to 63"):
        found_in(*rows, case)


def test_every_trial_stays_within_what_is_declared(found: Found) -> None:
    assert {trial.family for trial in found.trials} == {"lightgbm", "logistic"}
    assert [trial.number for trial in found.trials] == list(range(9))
    for trial in found.trials:
        ranges = SEARCH.lightgbm if trial.family == "lightgbm" else SEARCH.logistic
        assert trial.parameters.keys() == {"family", *(each.name for each in ranges)}
        for each in ranges:
            value = trial.parameters[each.name]
            assert each.low <= value <= each.high
            assert isinstance(value, int) == each.whole
        assert trial.value == pytest.approx(np.mean(trial.folds))
        assert (trial.trees is None) == (trial.family == "logistic")


def test_the_best_complete_trial_is_the_recipe(found: Found, small_case: UseCase) -> None:
    best, declared = best_of(found), searching(small_case).training

    assert best.number > 0
    assert found.family == best.family == "lightgbm"
    chosen = {name: value for name, value in best.parameters.items() if name != "family"}
    assert found.training == replace(declared, parameters={**declared.parameters, **chosen}, trees=best.trees)


def test_scores_for_the_threshold_are_of_the_validation_days_by_models_that_had_not_seen_them(
    found: Found, rows: tuple[pd.DataFrame, np.ndarray]
) -> None:
    frame, labels = rows

    judged = (frame["day"] >= "2024-01-14").to_numpy()
    assert found.days.tolist() == frame.loc[judged, "day"].tolist()
    assert found.labels.tolist() == labels[judged].tolist()
    for place, first in enumerate(("2024-01-14", "2024-01-19", "2024-01-24")):
        of_fold = (found.days >= first) & (found.days <= shift(first, 4))
        value = average_precision_score(found.labels[of_fold], found.scores[of_fold])
        assert value == pytest.approx(best_of(found).folds[place], abs=1e-12)


@pytest.mark.parametrize("family", ["lightgbm", "logistic"])
def test_a_search_may_be_of_one_family(family: Any, small_case: UseCase, events: Events) -> None:
    """So few rows that the logistic regression needs a stronger penalty than the declared one."""
    case = searching(small_case, families=(family,), trials=5)

    found = found_in(*events(FIRST, LAST, per_day=6, seed=3), case)

    assert found.family == family
    assert {trial.family for trial in found.trials} == {family}
    if family == "logistic":
        assert found.inverse_penalty == best_of(found).parameters["inverse_penalty"] < 0.01
        assert found.training == case.training


def test_a_case_without_a_search_is_named(rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase) -> None:
    with pytest.raises(ValueError, match="small declares no search"):
        found_in(*rows, small_case)


# Pruning ----------------------------------------------------------------------------------------------------------------------


def test_a_pruned_trial_is_kept_and_never_chosen_however_good_its_folds_were(
    rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase
) -> None:
    """On the last two folds nothing can be known, so what was pruned after the first looks better than what went on."""
    frame, labels = rows
    noise = np.random.default_rng(3).permutation(labels)
    case = searching(small_case, trials=12)

    found = found_in(frame, np.where(frame["day"] > "2024-01-18", noise, labels), case)

    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    complete = [trial for trial in found.trials if trial.state == "complete"]
    assert len(pruned) + len(complete) == 12
    assert pruned
    assert all(len(trial.folds) < 3 for trial in pruned)
    assert all(len(trial.folds) == 3 for trial in complete)
    assert max(trial.value or 0 for trial in pruned) > max(trial.value or 0 for trial in complete)
    assert found.training.parameters["learning_rate"] == best_of(found).parameters["learning_rate"]


def test_a_trial_is_pruned_where_it_is_below_the_median_of_those_before_and_not_among_the_first(
    rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase
) -> None:
    trials = found_in(*rows, searching(small_case, trials=12)).trials

    for trial in trials:
        before = [each for each in trials[: trial.number] if each.state == "complete"]
        step = len(trial.folds) - 1
        if trial.state == "pruned":
            assert len(before) >= search.STARTUP_TRIALS
            means = [float(np.mean(each.folds[: step + 1])) for each in before]
            reached = [float(np.mean(trial.folds[: so_far + 1])) for so_far in range(step + 1)]
            assert max(reached) < np.median(means)
    assert {trial.state for trial in trials} == {"complete", "pruned"}


# What is learned from ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[lgb.Dataset, lgb.Dataset]]:
    """What LightGBM was given to learn from and to be validated on, in order."""
    seen: list[tuple[lgb.Dataset, lgb.Dataset]] = []
    train = lgb.train

    def remembered(parameters: Any, rows: lgb.Dataset, **options: Any) -> lgb.Booster:
        seen.append((rows, options["valid_sets"][0]))
        return train(parameters, rows, **options)

    monkeypatch.setattr(search.lgb, "train", remembered)
    return seen


@pytest.mark.parametrize("share", [0.5, 0.1, 1e-9])
def test_thinned_negatives_stand_for_all_and_every_positive_stays(
    share: float, rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase, learned: list[tuple[lgb.Dataset, lgb.Dataset]]
) -> None:
    """In what is learned from, and in what decides when a fold stops growing."""
    frame, labels = rows

    found = found_in(frame, labels, searching(small_case, trials=1, kept_negatives=share))

    begins = ("2024-01-14", "2024-01-19", "2024-01-24")
    assert len(learned) > len(begins)  # and the last fit, on everything
    for pair, begin in zip(learned[: len(begins)], begins, strict=True):
        parts = (frame["day"] < shift(begin, -2), (frame["day"] >= begin) & (frame["day"] <= shift(begin, 4)))
        for part, shown in zip(parts, pair, strict=True):
            whole = labels[part]
            told, weight = np.asarray(shown.get_label()), np.asarray(shown.get_weight())
            negatives = int((whole == 0).sum())
            assert told.sum() == whole.sum()
            assert (told == 0).sum() == max(1, round(share * negatives))
            assert (weight[told == 1] == 1).all()
            assert weight[told == 0].sum() == pytest.approx(negatives, rel=1e-5)
    assert len(found.scores) == (frame["day"] >= begins[0]).sum()  # every row is judged by


def test_everything_is_learned_from_without_thinning(
    rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase, learned: list[tuple[lgb.Dataset, lgb.Dataset]]
) -> None:
    found_in(*rows, searching(small_case, trials=1, kept_negatives=1.0))

    assert [given_rows.num_data() for given_rows, _ in learned[:3]] == [1100, 1600, 2100]
    assert all(given_rows.get_weight() is None for given_rows, _ in learned)


def test_early_stopping_decides_the_trees(rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase) -> None:
    """By hand: each fold grows to the end, and the best number of trees is that after which `patience` more gain nothing."""
    frame, labels = rows
    case = searching(small_case, trials=1, kept_negatives=1.0, most_trees=60, patience=10)
    case = replace(case, training=replace(case.training, parameters={**case.training.parameters, "learning_rate": 0.25}))
    names = case.model_features
    known = {"kind": ("a", "b", "c")}
    best_of_folds = []
    for fold in folds(frame["day"].to_numpy(dtype=str), np.asarray(labels, dtype=float), case.training.search or SEARCH):
        whole = {**case.training.parameters, "objective": "binary", "deterministic": True, "force_row_wise": True, "verbosity": -1}
        data = lgb.Dataset(
            matrix(frame.iloc[fold.learned], names, known), labels[fold.learned], categorical_feature=[names.index("kind")]
        )
        grown = lgb.train({**whole, "seed": case.training.seed, "scale_pos_weight": 1.0}, data, num_boost_round=60)
        judged = matrix(frame.iloc[fold.judged], names, known)
        values = [
            average_precision_score(labels[fold.judged], grown.predict(judged, num_iteration=trees)) for trees in range(1, 61)
        ]
        best = 0
        while best < 60 and (ahead := [at for at in range(best + 1, min(best + 11, 60)) if values[at] > values[best]]):
            best = ahead[0]
        best_of_folds.append(best + 1)

    found = found_in(frame, labels, case)

    assert found.trials[0].trees == found.training.trees == int(np.median(best_of_folds))
    assert found.training.trees < 60


# Budgets ----------------------------------------------------------------------------------------------------------------------


def test_a_search_that_ended_tries_nothing_more_until_more_trials_are_wanted(
    rows: tuple[pd.DataFrame, np.ndarray],
    small_case: UseCase,
    tmp_path: Path,
    found: Found,
    learned: list[tuple[lgb.Dataset, lgb.Dataset]],
) -> None:
    ended = found_in(*rows, searching(small_case, trials=3), sqlite(tmp_path))
    trained = len(learned)

    again = found_in(*rows, searching(small_case, trials=3), sqlite(tmp_path))

    assert again.trials == ended.trials
    assert again.scores.tobytes() == ended.scores.tobytes()
    assert len(learned) - trained == 3  # the best recipe's scores, once a fold
    assert found_in(*rows, searching(small_case, trials=6), sqlite(tmp_path)).trials == found.trials[:6]


@pytest.fixture
def minutes_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock finds a minute gone."""
    gone = iter(range(0, 60_000, 60))
    monkeypatch.setattr(search, "time", SimpleNamespace(monotonic=lambda: float(next(gone))))


@pytest.mark.parametrize(("minutes", "tried"), [(0.0, 1), (1.0, 2), (2.5, 3), (1000.0, 9)])
def test_minutes_end_a_search_before_its_trials_do_and_never_before_the_first(
    minutes: float, tried: int, rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase, minutes_a_look: None
) -> None:
    found = found_in(*rows, searching(small_case, minutes=minutes))

    assert len(found.trials) == tried


# Kills ------------------------------------------------------------------------------------------------------------------------

PROGRAM = """
import importlib.util, json, os, signal, sys, time
import numpy as np, optuna

def loaded(name, file):
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

conftest, tests, storage, moments = sys.argv[1:]
optuna.storages.RDBStorage("sqlite://")  # imports what every child needs
conftest, tests = loaded("stages_conftest", conftest), loaded("stages_test_search", tests)
case, (rows, labels) = tests.searching(conftest.made_case()), conftest.made_events(tests.FIRST, tests.LAST, per_day=100)

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def kill_at(owner, method, call, when):
    whole, calls = getattr(owner, method), iter(range(1, 1000))
    def counted(*args, **options):
        last = next(calls) == call
        if last and when == "before":
            kill()
        told = whole(*args, **options)
        if last:
            kill()
        return told
    setattr(owner, method, counted)

for moment in json.loads(moments):
    child = os.fork()  # a process of its own that need not import everything anew
    if not child:
        if moment[0] == "seconds":
            signal.signal(signal.SIGALRM, kill)
            signal.setitimer(signal.ITIMER_REAL, moment[1])
        else:
            owner, method = moment[0].split(".")
            kill_at(getattr(optuna, owner), method, *moment[1:])
        tests.found_in(rows, labels, case, storage)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
MOMENTS = [
    ["Study.enqueue_trial", 1, "after"],  # the declared recipe waits
    ["Trial.report", 1, "after"],  # within the first trial
    ["Study.optimize", 2, "after"],  # between trials
    ["Trial.report", 4, "before"],  # within a trial, before its last fold counts
    ["Trial.suggest_float", 3, "after"],  # before a trial knows all that it tries
    ["Study.tell", 1, "before"],  # while tidying up after the kill before
    ["Study.optimize", 4, "before"],  # when trials are modelled and pruned already
]


def test_a_search_that_is_killed_again_and_again_ends_like_one_that_was_not(
    rows: tuple[pd.DataFrame, np.ndarray], small_case: UseCase, tmp_path: Path, found: Found
) -> None:
    storage = sqlite(tmp_path)
    here = Path(__file__)
    killed = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            PROGRAM,
            str(here.with_name("conftest.py")),
            str(here),
            storage,
            json.dumps(MOMENTS),
        ],
        env={**os.environ, "PYTHONPATH": str(here.parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.stdout.split() == ["-9"] * len(MOMENTS), killed.stderr
    before = [trial.state.name for trial in optuna.load_study(study_name="a search", storage=storage).get_trials()]
    assert 4 < before.count("COMPLETE") + before.count("PRUNED") < 9

    resumed = found_in(*rows, searching(small_case), storage)

    assert resumed.trials == found.trials
    assert (resumed.family, resumed.training) == (found.family, found.training)
    assert resumed.scores.tobytes() == found.scores.tobytes()
    states = [trial.state.name for trial in optuna.load_study(study_name="a search", storage=storage).get_trials()]
    assert states.count("COMPLETE") + states.count("PRUNED") == 9
    assert states.count("FAIL") == 3  # made again, each of them once
    assert not {"RUNNING", "WAITING"} & set(states)
