"""`ml-assets models`: what it lists, what it says of a day, a decision or two versions, what it lets a person decide, and what not.

The store holds three weeks of small real models on flights whose features were drawn at random: promoted, promoted, refused.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from ml_assets.cli import app
from ml_assets.orchestration.decisions import champion_before, record_gate_decision
from ml_assets.orchestration.publish import schema_of
from ml_assets.orchestration.store import Store
from ml_assets.stages import package
from ml_assets.stages.evaluate import Report, compare
from ml_assets.stages.labels import label_columns
from ml_assets.stages.model import Model
from ml_assets.stages.monitor import PERFORMANCE_COLUMNS, daily_performance
from ml_assets.stages.score import SCORE_COLUMNS, score
from ml_assets.stages.train import train_candidate
from ml_assets.use_case import Column, Day, DType, UseCase, day_range, shift
from ml_assets.use_cases.flight_delays import FLIGHT_DELAYS

WEEKS = ("2013-10-28", "2013-11-04", "2013-11-11")
DAYS = day_range("2013-09-23", "2013-11-13")
TELLS = "scheduled_speed_mph"
"""The one feature that says something about being late: the further from its middle, the likelier."""
CASE = replace(
    FLIGHT_DELAYS,
    gate=replace(
        FLIGHT_DELAYS.gate,
        floors={"average_precision": 0.5},
        margin=0.1,
        risk=0.5,
        resamples=100,
        slices=(),
        max_row_milliseconds=1e6,  # the machine's load is not what is tested here
    ),
    training=replace(
        FLIGHT_DELAYS.training,
        trees=4,
        parameters={"num_leaves": 4, "min_data_in_leaf": 20, "num_threads": 1},
    ),
)


def made_features() -> pd.DataFrame:
    """Forty flights a day, every feature drawn at random, and `late` with a chance that one of them tells."""
    random, count = np.random.default_rng(11), 40 * len(DAYS)
    day = np.repeat(DAYS, 40)
    columns: dict[str, Any] = {
        column.name: pd.array(random.choice(["x", "y", "z"], count), dtype="str")
        if column.dtype is DType.STRING
        else random.normal(size=count)
        for column in CASE.features.columns
    }
    late = (random.random(count) < 1 / (1 + np.exp(4 - 4 * np.abs(columns[TELLS])))).astype(np.int64)
    head = {
        "event_id": pd.array([f"e{number:05d}" for number in range(count)], dtype="str"),
        "event_time": (pd.to_datetime(day, utc=True) + pd.Timedelta(hours=15)).as_unit("us"),
        "day": pd.array(day, dtype="str"),
    }
    return pd.DataFrame({**head, **columns, "late": late})


def labels_of(features: pd.DataFrame) -> pd.DataFrame:
    """Each is known four hours after its event, on the same day."""
    return pd.DataFrame(
        {
            "event_id": features["event_id"],
            "event_day": features["day"],
            "event_time": features["event_time"],
            "known_at": features["event_time"] + pd.Timedelta(hours=4),
            "label": features["late"],
            **{name: pd.array(["x"] * len(features), dtype="str") for name in CASE.label.entities},
            "day": features["day"],
        }
    )


@dataclass(frozen=True)
class Built:
    """The store, for reading only, and the versions of its weeks."""

    root: Path
    versions: tuple[str, str, str]


def decided(store: Store, features: pd.DataFrame, week: Day, *, case: UseCase = CASE, learned: Any = None) -> str:
    """A candidate trained, judged by the real gate against the real champion, recorded and deployed."""
    last = shift(week, -2)
    first = shift(last, -13)
    training, holdout = (features[features["day"].between(*ends)] for ends in ((DAYS[0], shift(first, -2)), (first, last)))
    candidate = train_candidate(
        training, training["late"] if learned is None else learned(training["late"]), training["day"], case=case
    )
    files = package.files_of(candidate)
    days = {"training": (DAYS[0], shift(first, -2)), "holdout": (first, last)}
    manifest = package.manifest_of(
        case, candidate, week=week, as_of=case.starts(week).isoformat(), days=days, contents={}, holdout=holdout
    )
    version = store.models.save(case.name, files, manifest)
    champion = champion_before(case, store, week)
    champion_files, champion_manifest = store.models.load(case.name, champion) if champion else ({}, {})
    report = compare(
        case,
        week=week,
        as_of=case.starts(week).isoformat(),
        holdout=holdout,
        labels=holdout["late"],
        candidate=candidate,
        candidate_version=version,
        champion=package.model_in(champion_files, "candidate") if champion else None,
        champion_version=champion,
        champion_threshold=champion_manifest.get("threshold"),
        candidate_bytes=100_000,
        row_milliseconds=1.0,
    )
    store.models.save_report(case.name, week, report.to_json(), None, {})
    record_gate_decision(store, case, report, decided_at="2013-12-01T10:00:00+00:00")
    if report.decision.promoted:
        store.models.deploy(case.name, week, version, {})
    return version


def scored(store: Store, features: pd.DataFrame, days: list[Day]) -> None:
    """Scores by the version in force on each day, and how it did."""
    tables, parts = store.tables(CASE), []
    for day, (_, version) in store.models.in_force_on(CASE.name, days).items():
        files, manifest = store.models.load(CASE.name, version)
        models: dict[str, Model] = {name: package.model_in(files, name) for name in package.MODELS}
        parts.append(
            score(
                features[features["day"] == day],
                version=version,
                threshold=manifest["threshold"],
                model=models["candidate"],
                baseline=models["baseline"],
                climatology=models["climatology"],
            )
        )
    scores = pd.concat(parts, ignore_index=True)
    tables.publish("scores", scores, schema=schema_of(SCORE_COLUMNS), inputs=dict.fromkeys(days, "made"))
    live = daily_performance(scores, labels_of(features), {day: CASE.week_of(day) for day in days}, case=CASE)
    tables.publish("live_performance", live, schema=schema_of(PERFORMANCE_COLUMNS), inputs=dict.fromkeys(days, "made"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    root, features = tmp_path_factory.mktemp("built"), made_features()
    store = Store(root=str(root))
    columns = (
        Column(name="event_id", dtype=DType.STRING),
        Column(name="event_time", dtype=DType.TIMESTAMP),
        *CASE.features.columns,
    )
    inputs = dict.fromkeys(DAYS, "made")
    store.tables(CASE).publish("features", features, schema=schema_of(columns), inputs=inputs)
    store.tables(CASE).publish("labels", labels_of(features), schema=schema_of(label_columns(CASE)), inputs=inputs)
    better = replace(CASE, training=replace(CASE.training, trees=40))
    first = decided(store, features, WEEKS[0])
    second = decided(store, features, WEEKS[1], case=better)
    third = decided(store, features, WEEKS[2], learned=lambda late: np.random.default_rng(3).permutation(late))
    assert list(store.models.deployments(CASE.name)) == [*WEEKS[:2]]
    scored(store, features, day_range(WEEKS[0], "2013-11-13"))
    return Built(root=root, versions=(first, second, third))


Models = Callable[..., Result]


def invoked(root: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["models", "flight_delays", *words], env={"COLUMNS": "200", "ML_ASSETS_ROOT": str(root)})


@pytest.fixture
def read(built: Built) -> Models:
    """`read("live", "--at", "2013-11-05")`, in a store that nobody may change."""
    return lambda *words: invoked(built.root, *words)


@pytest.fixture
def own(built: Built, tmp_path: Path) -> Path:
    """The store, to be changed."""
    root = tmp_path / "own"
    shutil.copytree(built.root, root, symlinks=True)
    return root


def said(result: Result) -> str:
    """What it printed, with every run of blanks as one."""
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def refused(result: Result) -> str:
    """The message of a command that would not."""
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


def report_of(built: Built, week: Day) -> Report:
    return Report.from_json(Store(root=str(built.root)).models.report(CASE.name, week) or "")


def test_two_versions_are_compared_on_the_same_rows(read: Models, built: Built) -> None:
    first, second, _ = built.versions

    text = said(read("compare", first, second))

    assert "trees 4 40" in text
    assert "training days 2013-09-23 to 2013-10-11 2013-09-23 to 2013-10-18" in text
    report = report_of(built, WEEKS[1])
    assert f"on the same {report.holdout_rows} events of 2013-10-20 to 2013-11-02, {report.positives} positive" in text
    assert report.champion is not None
    tail = text[text.index("on the same") :]
    ours, theirs = (f"{model.metrics['average_precision']:.4f}" for model in (report.champion, report.candidate))
    assert f"average_precision {ours} {theirs}" in tail  # both models as the gate saw them, since no label changed
    assert f"average precision of {second} minus that of {first}: " in tail
    assert "was trained on some of these days" not in tail


def test_a_version_that_learned_from_the_days_it_is_compared_on_is_named(own: Path, built: Built) -> None:
    """A model of the week of the first one that was trained up to yesterday, so to speak."""
    store = Store(root=str(own))
    files, manifest = store.models.load(CASE.name, built.versions[0])
    eager = store.models.save(CASE.name, files, {**manifest, "days": {**manifest["days"], "training": [DAYS[0], "2013-10-30"]}})

    text = said(invoked(own, "compare", eager, built.versions[1]))

    assert f"{eager} was trained on some of these days, and looks better on them than it is" in text
    assert f"{built.versions[1]} was trained" not in text


@pytest.mark.parametrize("place", [0, 1])
def test_a_version_that_does_not_exist_is_answered_with_those_that_do(place: int, read: Models, built: Built) -> None:
    words = [built.versions[0], built.versions[0]]
    words[place] = "2013-10-28-00000000"

    message = refused(read("compare", *words))

    assert f"no model 2013-10-28-00000000 of flight_delays; there are {', '.join(built.versions)}" in message


def test_a_damaged_record_is_said_in_its_own_words(own: Path) -> None:
    file = own / "decisions" / "flight_delays" / "000002.json"
    file.write_text(file.read_text().replace('"gate"', '"nobody"'))

    for words in ((), ("live",), ("show", "1"), ("rollback", "--reason", "because")):
        assert "000002.json is damaged: its content is not what was written" in refused(invoked(own, *words))


def test_a_case_that_does_not_exist_is_answered_with_those_that_do() -> None:
    result = CliRunner().invoke(app, ["models", "flights"])

    assert "no use case 'flights'; there are: flight_delays" in refused(result)


# Deciding ---------------------------------------------------------------------------------------------------------------------


def test_a_rollback_tells_what_it_did_and_everyone_sees_it(own: Path, built: Built) -> None:
    first, second, _ = built.versions

    text = said(invoked(own, "rollback", "--reason", "too many alerts [at night]", "--by", "ann"))

    assert "decision 4, rollback from 2013-11-14 on, by ann at " in text
    assert "reason too many alerts [at night]" in text
    assert f"in force {first} from 2013-11-14 on, {second} before it" in text
    assert "stale nothing: no day from 2013-11-14 on has scores of another version" in text
    live = said(invoked(own, "live", "--at", "2013-11-14"))
    assert f"in force on 2013-11-14: {first}, since 2013-11-14" in live
    assert f"seen {second} in force since 2013-11-04" in live
    assert f"in force on 2013-11-13: {second}" in said(invoked(own, "live", "--at", "2013-11-13"))
    listed = invoked(own).output
    assert "2013-10-28 to 2013-11-03, in force since 2013-11-14" in listed
    assert "too many alerts [at night]" in listed
    current = json.loads((own / "deployments" / "flight_delays" / "current.json").read_text())
    assert (current["version"], current["decision"]["reason"]) == (first, "too many alerts [at night]")


def test_a_decision_shows_the_auditor_what_its_taker_saw(own: Path, built: Built) -> None:
    said(invoked(own, "rollback", "--reason", "because"))
    live = Store(root=str(own)).tables(CASE).read("live_performance", ["2013-11-13"])

    text = said(invoked(own, "show", "4"))

    assert f"seen {built.versions[1]} in force since 2013-11-04" in text
    assert f"2013-11-13 40 40 {live['positives'].iloc[0]} {live['alerts'].iloc[0]} {live['precision'].iloc[0]:.4f}" in text


def test_a_rollback_of_the_past_tells_what_is_stale(own: Path, built: Built) -> None:
    text = said(invoked(own, "rollback", "--to", built.versions[0], "--from", "2013-11-08", "--reason", "because"))

    assert "the scores of 6 days (2013-11-08 to 2013-11-13)" in text
    assert "1 week from 2013-11-11 on, with another champion to beat" in text
    assert "ml-assets run flight_delays makes them again" in text


def test_a_pin_and_an_unpin(own: Path, built: Built) -> None:
    first, second, third = built.versions

    assert f"in force {third} from 2013-11-14 on, {second} before it" in said(
        invoked(own, "pin", third, "--reason", "an experiment")
    )
    assert f"{third} is pinned by decision 4 since 2013-11-14" in refused(
        invoked(own, "rollback", "--to", first, "--reason", "because")
    )
    assert f"in force {second} from 2013-11-20 on, {third} before it" in said(
        invoked(own, "unpin", "--from", "2013-11-20", "--reason", "it failed")
    )
    lines = [line for line in invoked(own).output.splitlines() if line.strip().startswith(third)]
    assert "2013-11-14 to 2013-11-19" in lines[0]


@pytest.mark.parametrize("words", [("rollback",), ("pin", "FIRST"), ("unpin",)])
def test_a_decision_without_a_reason_is_not_taken(words: tuple[str, ...], own: Path, built: Built) -> None:
    words = tuple(word.replace("FIRST", built.versions[0]) for word in words)

    if words == ("unpin",):
        said(invoked(own, "pin", built.versions[0], "--reason", "because"))
    taken = len(Store(root=str(own)).models.decisions.all(CASE.name))

    missing, blank = invoked(own, *words), invoked(own, *words, "--reason", "  ")

    assert missing.exit_code == 2
    assert "Missing option '--reason'" in missing.stderr
    assert "a decision needs a reason" in refused(blank)
    assert len(Store(root=str(own)).models.decisions.all(CASE.name)) == taken


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("rollback", "--to", "2013-10-28-00000000"),
            "no model 2013-10-28-00000000 of flight_delays; there are FIRST, SECOND, THIRD",
        ),
        (("pin", "nothing"), "no model nothing of flight_delays; there are FIRST, SECOND, THIRD"),
        (("rollback", "--to", "SECOND"), "SECOND is in force on 2013-11-14 already, since 2013-11-04"),
        (("unpin",), "no version is pinned on 2013-11-14"),
        (
            ("rollback", "--from", "2013-11-03"),
            "no other version was in force before 2013-11-03: name one with --to; there are FIRST",
        ),
        (("rollback", "--from", "tomorrow"), "'tomorrow' is not a day: expected one that exists, written YYYY-MM-DD"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_there_is(words: tuple[str, ...], message: str, own: Path, built: Built) -> None:
    def filled(text: str) -> str:
        for name, version in zip(("FIRST", "SECOND", "THIRD"), built.versions, strict=True):
            text = text.replace(name, version)
        return text

    result = invoked(own, *map(filled, words), "--reason", "because")

    assert filled(message) in refused(result)
    assert len(Store(root=str(own)).models.decisions.all(CASE.name)) == 3


def test_who_decides_is_who_is_logged_in(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: "bob")

    assert "decision 4, rollback from 2013-11-14 on, by bob at " in said(invoked(own, "rollback", "--reason", "because"))


def test_where_nobody_is_logged_in_it_asks_who_decides(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", nobody)

    assert "nobody is logged in: say with --by who decides" in refused(invoked(own, "rollback", "--reason", "because"))
