"""From the delivered files to live performance: nothing is lost, nothing is made twice, everything can be traced and read back."""

from collections import Counter
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ml_assets.orchestration import provenance, summary
from ml_assets.orchestration.publish import schema_of
from ml_assets.orchestration.weeks import CANDIDATE
from ml_assets.storage.tables import content_hashes
from ml_assets.use_case import Column, DType, day_range, shift
from ml_assets.use_cases.flight_delays.source import FOLDER

BEFORE_MODELS = ("raw_flights", "flights", "rejected_flights", "raw_weather", "weather", "rejected_weather", "labels", "features")
WEEKS = ("2013-01-28", "2013-02-04", "2013-02-11")
FIVE_DAYS = day_range("2013-01-07", "2013-01-11")


def events_of(instance: dg.DagsterInstance, kind: dg.DagsterEventType) -> list[Any]:
    """What was reported, of all runs, the oldest first."""
    runs = reversed(instance.get_runs())
    found = [entry.dagster_event for run in runs for entry in instance.all_logs(run.run_id, of_type=kind)]
    return [event.event_specific_data for event in found]


def days_with_all_labels(world) -> set[str]:
    rows = world.tables.read("scores")
    known = set(world.tables.read("labels")["event_id"])
    return set(rows["day"]) - set(rows.loc[~rows["event_id"].isin(known), "day"])


def test_every_day_is_materialised_in_dagster_and_published_in_the_ledger(undisturbed):
    every_day = set(day_range("2013-01-01", "2013-02-17"))
    scored = set(day_range(WEEKS[0], "2013-02-17"))
    wanted = {**dict.fromkeys(BEFORE_MODELS, every_day), "scores": scored, "live_performance": days_with_all_labels(undisturbed)}
    assert len(wanted["live_performance"]) >= len(scored) - undisturbed.case.label_lookback_days
    for name, days in wanted.items():
        assert undisturbed.partitions(name) == days, name
        assert set(undisturbed.tables.ledger(name)) == days, name
    assert set(undisturbed.tables.ledger("planes")) == {"all"}
    assert undisturbed.partitions("candidate_model") == undisturbed.partitions("evaluation_report") == set(WEEKS)
    assert undisturbed.partitions("deployed_model") == set(undisturbed.store.models.deployments(undisturbed.case.name))


def test_the_second_model_replaced_the_first(undisturbed):
    first, second, *_ = summary.weeks(undisturbed.case, undisturbed.store)
    assert first.report.decision.promoted
    assert second.report.decision.promoted
    assert second.report.decision.champion_before == first.report.decision.champion_after


def test_what_the_ledger_says_is_what_the_rows_are(undisturbed):
    published = undisturbed.contents()
    with_rows = {name: {day: entry for day, entry in days.items() if entry[0]} for name, days in published.items()}
    assert undisturbed.contents_of_rows() == with_rows


def test_delivered_rows_go_out_or_are_rejected_and_events_with_features_are_scored(undisturbed):
    rows = {name: {day: count for day, (count, _) in days.items()} for name, days in undisturbed.contents().items()}
    for name in ("flights", "weather", "planes"):
        together = {day: rows[name][day] + rows[f"rejected_{name}"][day] for day in rows[name]}
        assert together == rows[f"raw_{name}"], name
    for day in rows["raw_flights"]:
        assert rows["raw_flights"][day] == len(undisturbed.file(day).read_text(encoding="utf-8").splitlines()) - 1
    assert rows["features"] == rows["flights"]
    assert rows["scores"] == {day: rows["features"][day] for day in rows["scores"]}
    assert sum(rows["scores"].values()) > 1000


def test_the_account_has_no_remainder(undisturbed):
    found = summary.account(undisturbed.case, undisturbed.store)
    assert len(found) == 48
    assert (found["remainder"] == 0).all()
    assert (found["waiting"] == 0).all()
    assert found["delivered"].sum() == sum(rows for rows, _ in undisturbed.contents("raw_flights")["raw_flights"].values())


def test_each_day_is_scored_by_the_model_in_force_on_it(undisturbed):
    rows = undisturbed.tables.read("scores", columns=["model_version", "day"]).drop_duplicates()
    deployed = undisturbed.store.models.deployments(undisturbed.case.name)
    assert {WEEKS[0], WEEKS[1]} <= deployed.keys() <= set(WEEKS)
    in_force = {day: deployed[max(week for week in deployed if week <= day)] for day in undisturbed.tables.ledger("scores")}
    assert dict(zip(rows["day"], rows["model_version"], strict=True)) == in_force


def test_a_second_time_starts_no_run_and_changes_nothing(undisturbed, monkeypatch):
    monkeypatch.setenv(FOLDER, str(undisturbed.folder))
    before, runs = undisturbed.contents(), undisturbed.instance.get_runs_count()
    assert undisturbed.bring_up_to_date().results == []
    assert undisturbed.contents() == before
    assert undisturbed.instance.get_runs_count() == runs


def test_a_range_and_its_days_one_by_one_give_the_same(make_world):
    planes = ("raw_planes", "planes", "rejected_planes")
    together, alone = make_world(name="together", given=planes), make_world(name="alone", given=planes)
    together.runner().run(BEFORE_MODELS, FIVE_DAYS[0], FIVE_DAYS[-1], title="range")
    for day in FIVE_DAYS:
        alone.runner().run(BEFORE_MODELS, day, day, title="day")
    assert set(together.contents("features")["features"]) == set(FIVE_DAYS)
    assert alone.contents(*BEFORE_MODELS) == together.contents(*BEFORE_MODELS)
    assert alone.contents_of_rows("features") == together.contents_of_rows("features")
    assert {name: alone.partitions(name) for name in BEFORE_MODELS} == {name: set(FIVE_DAYS) for name in BEFORE_MODELS}


def test_the_rows_that_a_model_was_trained_on_can_be_read_back_after_a_day_was_rewritten(make_world):
    world = make_world(given=("features", "labels", "models", "weeks"))
    week, rewritten = "2013-02-11", "2013-01-20"
    noted = world.store.models.noted(world.case.name, CANDIDATE, week)
    _, manifest = world.store.models.load(world.case.name, noted["version"])
    days = {"features": day_range("2013-01-01", shift(week, -1)), "labels": day_range("2013-01-01", shift(week, -1))}
    for name in ("features", "labels"):
        rows = world.tables.read(name, [rewritten])
        number = "distance_miles" if name == "features" else "label"
        columns = [Column(name=column, dtype=_dtype(rows[column])) for column in rows if column != "day"]
        world.tables.publish(
            name, rows.assign(**{number: 1 - rows[number]}), schema=schema_of(columns), inputs={rewritten: "rewritten"}
        )
        assert world.tables.ledger(name)[rewritten].content != manifest["contents"][name][rewritten]
        assert list(manifest["contents"][name]) == days[name] == list(noted["delta_versions"][name])
        for version in set(noted["delta_versions"][name].values()):
            of_version = [day for day, held in noted["delta_versions"][name].items() if held == version]
            read_back = content_hashes(world.tables.read(name, of_version, version=version), of_version)
            assert {day: content for day, (_, content) in read_back.items()} == {
                day: manifest["contents"][name][day] for day in of_version
            }


def _dtype(values: pd.Series) -> DType:
    if isinstance(values.dtype, pd.DatetimeTZDtype):
        return DType.TIMESTAMP
    return DType.STRING if isinstance(values.dtype, pd.StringDtype) else DType(str(values.dtype))


@pytest.mark.parametrize("number", [0, 1000, -1])
def test_a_score_is_traced_to_the_delivered_row(undisturbed, rows_of, number):
    scored = undisturbed.tables.read("scores")
    score = scored.iloc[number]
    found = provenance.explain(undisturbed.case, undisturbed.store, score["event_id"])
    delivered = rows_of(undisturbed.file(score["day"])).iloc[found.event["source_row"] - 1]
    raw = pd.Series({name: found.raw[f"delivered_{name}" if name == "day" else name] for name in delivered.index})
    assert raw.fillna("").to_dict() == delivered.fillna("").to_dict()
    day, carrier, flight = score["event_id"].split("-")[0], delivered["carrier"], delivered["flight"]
    assert score["event_id"] == f"{day}-{carrier}{flight}-{delivered['origin']}"
    assert found.raw["source_file"] == f"flights/{score['day']}.csv"
    assert found.score["score"] == score["score"]
    assert found.manifest["version"] == score["model_version"] == found.report.decision.champion_after
    assert found.published["scores"] == undisturbed.tables.ledger("scores")[score["day"]].version


def test_an_unknown_event_is_said_to_be_unknown(undisturbed):
    with pytest.raises(LookupError, match="no event '20130101-XX1-EWR'"):
        provenance.explain(undisturbed.case, undisturbed.store, "20130101-XX1-EWR")


@pytest.mark.parametrize("name", ["raw_flights", "flights", "rejected_weather", "labels", "features", "scores", "live_performance"])
def test_the_metadata_of_each_partition_are_those_of_its_rows(undisturbed, name):
    key = dg.AssetKey([undisturbed.case.name, name])
    shown = {
        event.materialization.partition: event.materialization
        for event in events_of(undisturbed.instance, dg.DagsterEventType.ASSET_MATERIALIZATION)
        if event.materialization.asset_key == key
    }
    ledger, rows = undisturbed.tables.ledger(name), undisturbed.tables.read(name)
    assert shown.keys() == ledger.keys()
    for day, entry in ledger.items():
        metadata = {label: value.value for label, value in shown[day].metadata.items()}
        assert (metadata["dagster/row_count"], metadata["delta_version"], metadata["content_hash"]) == (
            *(entry.rows, entry.version),
            entry.content,
        )
        assert shown[day].tags["dagster/data_version"] == entry.content
        assert 0 <= metadata["null_share"] <= 1
        of_day = rows[rows["day"] == day]
        for column, share in metadata.get("null_shares", {}).items():
            assert share == pytest.approx(of_day[column].isna().mean(), abs=1e-4), (day, column)
    if name == "flights":
        assert any("null_shares" in shown[day].metadata for day in ledger)


def test_every_check_says_which_partition_it_is_about(undisturbed):
    every_day = Counter(day_range("2013-01-01", "2013-02-17"))
    seen: dict[str, Counter[str | None]] = {}
    for event in events_of(undisturbed.instance, dg.DagsterEventType.ASSET_CHECK_EVALUATION):
        seen.setdefault(event.check_name, Counter())[event.partition] += 1
    of_planes = {check for check, days in seen.items() if None in days}
    assert seen["features_are_point_in_time"] == seen["features_keep_the_contract"] == every_day
    assert seen["flights_keep_the_contract"] == seen["labels_are_known_after_the_event"] == every_day
    assert seen["candidate_may_go_live"] == Counter(WEEKS)
    assert of_planes == {"every_delivered_row_arrived", "every_row_is_accounted_for", "planes_keep_the_contract"}
    assert seen["every_delivered_row_arrived"] == every_day + every_day + Counter([None])  # flights, weather, planes
