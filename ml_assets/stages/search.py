"""The search for the best recipe: Optuna's TPE on prequential folds, seeded, and resumed where it was interrupted.

A fold trains on all days up to a gap before its validation days, as a model in production would. A trial is pruned after a fold when
the best mean of its folds so far is below the median of the trials before it.

Each trial draws from a sampler of its own, seeded by how many trials are finished, so that a search that was killed and resumed tries
what an undisturbed one tries: the trial that was under way is made again, and counted once.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.stages.inputs import FloatArray, IntArray, categories, matrix
from ml_assets.stages.logistic import fit_logistic
from ml_assets.stages.ranking import average_precision
from ml_assets.stages.sufficiency import CannotJudgeError
from ml_assets.stages.trees import REPRODUCIBLE, dataset, thinned
from ml_assets.stages.trials import Trial
from ml_assets.use_case import Day, Range, Search, Training, UseCase, shift

if TYPE_CHECKING:
    import optuna

STARTUP_TRIALS = 4
"""Trials drawn at random before TPE has enough to model, and before any is pruned."""
CHOICES = "family"
DEFAULTS: Mapping[str, float] = {"scale_pos_weight": 1.0, "inverse_penalty": 1.0}
"""What a recipe means that does not name a searched hyperparameter."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The best recipe with its family, every trial, and the best one's scores of the validation days, for the threshold."""

    family: str
    training: Training
    inverse_penalty: float
    trials: tuple[Trial, ...]
    scores: FloatArray
    labels: FloatArray
    days: npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Rows to learn from and rows to be judged by, as positions."""

    learned: IntArray
    judged: IntArray


def folds(days: npt.NDArray[Any], labels: FloatArray, search: Search) -> list[Fold]:
    """Prequential folds over the last days, earliest first, but for those that have one class, or no rows, on either side.

    Args:
        days: the key of each row's day, ascending.
        labels: 0 or 1, one a row.

    Raises:
        CannotJudgeError: no fold has both classes to learn from and to be judged by.
    """
    last = str(days[-1])
    found, unfit = [], []
    for back in reversed(range(search.folds)):
        end = shift(last, -back * search.fold_days)
        begin = shift(end, 1 - search.fold_days)
        learned = np.flatnonzero(days < shift(begin, -search.gap_days))
        judged = np.flatnonzero((days >= begin) & (days <= end))
        if len(np.unique(labels[learned])) == len(np.unique(labels[judged])) == 2:
            found.append(Fold(learned=learned, judged=judged))
            continue
        unfit.append(
            f"fold {begin} to {end} has {len(learned)} rows to learn from ({int(labels[learned].sum())} positives) "
            f"and {len(judged)} to be judged by ({int(labels[judged].sum())})"
        )
    if not found:
        raise CannotJudgeError(
            f"no fold of the search has both classes to learn from and to be judged by: {'; '.join(unfit)}; rows begin on {days[0]}: "
            "declare fewer or shorter folds"
        )
    return found


def search_recipe(
    rows: pd.DataFrame, labels: FloatArray, days: Sequence[Day] | pd.Series, *, case: UseCase, storage: str | None, name: str
) -> Found:
    """The best of the case's trials.

    Args:
        rows, labels, days: one an event, in order of time; all known when the hold-out begins.
        storage: where Optuna keeps the trials (an SQLAlchemy URL), so that an interrupted search goes on; None for memory.
        name: of the study: the same name is the same search, so it names rows and recipe.
    """
    search = case.training.search
    if search is None:
        raise ValueError(f"use case {case.name} declares no search")
    ground = _Ground(rows=rows, labels=labels, days=np.asarray(days, dtype=str), case=case, search=search)
    study = _study(storage, name)
    begun = time.monotonic()
    while (done := len(_finished(study))) < search.trials:
        if done and search.minutes is not None and time.monotonic() - begun > 60 * search.minutes:
            break
        _next_trial(study, ground, done)
    trials = tuple(_told(number, trial) for number, trial in enumerate(_finished(study)))
    best = max((trial for trial in trials if trial.state == "complete"), key=lambda trial: (trial.value or 0.0, -trial.number))
    chosen = {key: value for key, value in best.parameters.items() if key != CHOICES}
    judged = np.concatenate([fold.judged for fold in ground.folds])
    return Found(
        family=best.family,
        training=ground.recipe(chosen, best.trees) if best.family == "lightgbm" else case.training,
        inverse_penalty=float(chosen.get("inverse_penalty", 1.0)),
        trials=trials,
        scores=np.concatenate([ground.attempt(best.family, chosen, place)[0] for place in range(len(ground.folds))]),
        labels=labels[judged],
        days=ground.days[judged],
    )


@dataclass(frozen=True, kw_only=True)
class _Ground:
    """What every trial runs on; the binned rows of a fold are made once."""

    rows: pd.DataFrame
    labels: FloatArray
    days: npt.NDArray[Any]
    case: UseCase
    search: Search

    @cached_property
    def folds(self) -> list[Fold]:
        return folds(self.days, self.labels, self.search)

    @cached_property
    def texts(self) -> list[str]:
        return [name for name in self.case.features.categorical if name in self.case.model_features]

    @cached_property
    def binned(self) -> list[tuple[lgb.Dataset, lgb.Dataset, FloatArray]]:
        return [self._binned(fold) for fold in self.folds]

    def _binned(self, fold: Fold) -> tuple[lgb.Dataset, lgb.Dataset, FloatArray]:
        """Training rows (negatives thinned), validation rows, and these as a matrix."""
        kept, weight = thinned(fold.learned, self.labels, self.case.training.kept_negatives)
        names, known = self.case.model_features, {name: categories(self.rows.iloc[kept], name) for name in self.texts}
        learned = dataset(
            self.rows.iloc[kept], self.labels[kept], names=names, known=known, parameters=self._fixed, weight=weight
        ).construct()
        # Early stopping sorts the validation rows after each tree: thinned ones cost a fifth of the time of the tree itself.
        seen, weight_seen = thinned(fold.judged, self.labels, self.case.training.kept_negatives)
        validation = dataset(
            self.rows.iloc[seen],
            self.labels[seen],
            names=names,
            known=known,
            parameters=self._fixed,
            weight=weight_seen,
            reference=learned,
        ).construct()
        return learned, validation, matrix(self.rows.iloc[fold.judged], names, known)

    @property
    def _fixed(self) -> dict[str, Any]:
        # Without the pre-filter the binned rows serve any `min_data_in_leaf`.
        return {
            **self.case.training.parameters,
            **REPRODUCIBLE,
            "seed": self.case.training.seed,
            "metric": "average_precision",
            "feature_pre_filter": False,
        }

    def attempt(self, family: str, chosen: Mapping[str, Any], place: int) -> tuple[FloatArray, int | None]:
        """Scores of a fold's validation rows by a recipe, and the number of trees that was best."""
        fold = self.folds[place]
        if family == "logistic":
            model = fit_logistic(
                self.rows.iloc[fold.learned], self.labels[fold.learned], names=self.case.model_features, texts=self.texts, **chosen
            )
            return model.predict(self.rows.iloc[fold.judged]), None
        learned, validation, judged = self.binned[place]
        booster = lgb.train(
            {**self._fixed, **chosen},
            learned,
            num_boost_round=self.search.most_trees,
            valid_sets=[validation],
            callbacks=[lgb.early_stopping(self.search.patience, verbose=False)],
        )
        return np.asarray(booster.predict(judged), dtype=np.float64), booster.best_iteration

    def value(self, place: int, scores: FloatArray) -> float:
        """Average precision on a fold; 0 without positives, alike for all trials, since a trial without a value would be tried for ever."""
        value = average_precision(self.labels[self.folds[place].judged], scores)
        return 0.0 if np.isnan(value) else value

    def recipe(self, chosen: Mapping[str, Any], trees: int | None) -> Training:
        training = self.case.training
        return replace(training, parameters={**training.parameters, **chosen}, trees=trees or training.trees)


def _study(storage: str | None, name: str) -> "optuna.Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name,
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=0),
    )
    for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)  # under way when the process ended
    return study


def _finished(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    import optuna

    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    return study.get_trials(deepcopy=False, states=states)


def _next_trial(study: "optuna.Study", ground: _Ground, done: int) -> None:
    import optuna

    case, search = ground.case, ground.search
    study.sampler = optuna.samplers.TPESampler(seed=case.training.seed + done, n_startup_trials=STARTUP_TRIALS)
    if done < len(search.families) and not study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)):
        study.enqueue_trial(_declared(case.training, search, search.families[done]))

    def objective(trial: "optuna.Trial") -> float:
        family = trial.suggest_categorical(CHOICES, search.families)
        chosen = {each.name: _suggested(trial, each) for each in (search.lightgbm if family == "lightgbm" else search.logistic)}
        values: list[float] = []
        trees: list[int] = []
        for place in range(len(ground.folds)):
            scores, best = ground.attempt(family, chosen, place)
            values.append(ground.value(place, scores))
            trees += [] if best is None else [best]
            trial.set_user_attr("folds", values)
            trial.set_user_attr("trees", int(np.median(trees)) if trees else None)
            trial.report(float(np.mean(values)), step=place)
            if place + 1 < len(ground.folds) and trial.should_prune():
                raise optuna.TrialPruned
        return float(np.mean(values))

    study.optimize(objective, n_trials=1)


def _declared(training: Training, search: Search, family: str) -> dict[str, Any]:
    """The declared recipe of a family, as far as it is searched.

    Raises:
        ValueError: it does not name what is searched, or lies outside of it.
    """
    ranges = search.lightgbm if family == "lightgbm" else search.logistic
    known = {**DEFAULTS, **training.parameters}
    if unnamed := [each.name for each in ranges if each.name not in known]:
        raise ValueError(
            f"a search begins with the declared recipe, which does not name {', '.join(unnamed)}: add it to `parameters`"
        )
    if outside := [each for each in ranges if not each.low <= float(known[each.name]) <= each.high]:
        told = ", ".join(f"{each.name} is {known[each.name]}, searched from {each.low:g} to {each.high:g}" for each in outside)
        raise ValueError(f"a search begins with the declared recipe, which lies outside: {told}")
    return {CHOICES: family, **{each.name: known[each.name] for each in ranges}}


def _suggested(trial: "optuna.Trial", searched: Range) -> float | int:
    if searched.whole:
        return trial.suggest_int(searched.name, int(searched.low), int(searched.high), log=searched.log)
    return trial.suggest_float(searched.name, searched.low, searched.high, log=searched.log)


def _told(number: int, trial: "optuna.trial.FrozenTrial") -> Trial:
    complete = trial.state.name == "COMPLETE"
    values = tuple(float(value) for value in trial.user_attrs["folds"])
    return Trial(
        number=number,
        state="complete" if complete else "pruned",
        value=float(np.mean(values)),
        family=str(trial.params[CHOICES]),
        parameters=dict(trial.params),
        folds=values,
        trees=trial.user_attrs["trees"],
    )
