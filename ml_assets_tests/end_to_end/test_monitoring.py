"""What watches the models of seven weeks of flights, against plain pandas; and a model made out of turn."""

import re

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from ml_assets.orchestration.overview import overview_of
from ml_assets.orchestration.pipeline import build_defs
from ml_assets.orchestration.shadow import comparisons
from ml_assets.orchestration.summary import weeks
from ml_assets.stages import package
from ml_assets.stages.drift import SCORE
from ml_assets.stages.labels import latest_known
from ml_assets.stages.reference import reference_in
from ml_assets.use_case import Day, shift
from ml_assets_tests.end_to_end.conftest import CASE, WEEKS, MakeWorld, World

WINDOW = CASE.monitoring.window_days


def in_force(world: World, day: Day) -> str:
    found = world.store.models.in_force(CASE.name, day)
    assert found is not None
    return found[1]


def test_every_scored_day_is_watched(undisturbed: World) -> None:
    ledgers = {name: list(undisturbed.tables.ledger(name)) for name in ("scores", "live_performance")}
    for name in ("estimated_performance", "drift_report"):
        assert list(undisturbed.tables.ledger(name)) == ledgers["scores"], name
    assert list(undisturbed.tables.ledger("performance_report")) == ledgers["live_performance"]


@pytest.mark.parametrize("day", ["2013-02-05", "2013-02-17"])
def test_drift_is_the_index_of_the_week_against_the_holdout(undisturbed: World, day: Day) -> None:
    """By `pandas.cut`; on 5 February the window reaches into a week of another model, whose days this one scores, too."""
    version = in_force(undisturbed, day)
    files, manifest = undisturbed.store.models.load(CASE.name, version)
    begin, end = manifest["days"]["holdout"]
    features = undisturbed.tables.read("features")
    holdout = features[features["day"].between(begin, end)]
    window = features[features["day"].between(shift(day, 1 - WINDOW), day)]
    model = package.model_in(files, "candidate")
    rows = undisturbed.tables.read("drift_report", [day]).set_index("feature")
    assert set(rows["model_version"]) == {version}
    names = [name for name in model.inputs if holdout[name].dtype.kind == "f"][:20]
    columns = [(name, holdout[name], window[name]) for name in names]
    columns.append((SCORE, pd.Series(model.predict(holdout)), pd.Series(model.predict(window))))
    for name, theirs, ours in columns:
        cuts = np.unique(np.quantile(theirs.dropna(), np.arange(1, 10) / 10, method="inverted_cdf"))
        edges = [-np.inf, *(cuts[:-1] if cuts[-1] == theirs.max() else cuts), np.inf]
        counts = [
            np.append(pd.cut(values, edges).value_counts(sort=False).to_numpy(), values.isna().sum()) for values in (ours, theirs)
        ]
        p, q = ((each + 0.5) / (each.sum() + 0.5 * len(each)) for each in counts)
        assert rows.loc[name, "psi"] == pytest.approx(((p - q) * np.log(p / q)).sum()), name
        assert rows.loc[name, "window_rows"] == len(window)


def test_expected_positives_are_the_calibrated_scores_of_the_events_that_are_judged(undisturbed: World) -> None:
    day = WEEKS[1]
    scores = undisturbed.tables.read("scores", [day])
    reference = reference_in(undisturbed.store.models.load(CASE.name, in_force(undisturbed, day))[0])
    assert reference is not None
    rates = reference.calibration.rate(scores["score"].to_numpy())
    live, estimated = (undisturbed.tables.read(name, [day]).iloc[0] for name in ("live_performance", "estimated_performance"))
    assert live["expected_positives"] == pytest.approx(rates.sum())
    assert estimated["expected_positives"] == pytest.approx(rates.sum())
    assert estimated["precision"] == pytest.approx(rates[scores["alert"] == 1].mean())
    report = undisturbed.tables.read("performance_report", [day]).iloc[0]
    window = undisturbed.tables.read(
        "live_performance", [each for each in undisturbed.tables.ledger("live_performance") if shift(day, -WINDOW) < each <= day]
    )
    assert report["window_days"] == len(window)
    assert report["realised_roc_auc"] == pytest.approx(window["roc_auc"].mean())
    assert report["positives"] == window["positives"].sum()


def test_the_model_that_lost_scores_in_shadow_and_is_compared(undisturbed: World) -> None:
    shadows = undisturbed.tables.read("shadow_scores")
    assert len(shadows), "some week has two models"
    for (day, in_shadow, real), rows in shadows.groupby(["day", "model_version", "in_force"]):
        assert real == in_force(undisturbed, day) != in_shadow
        files, manifest = undisturbed.store.models.load(CASE.name, in_shadow)
        features = undisturbed.tables.read("features", [day])
        expected = package.model_in(files, package.served_by(files)).predict(features)
        np.testing.assert_array_equal(rows["score"].to_numpy(), expected)
        np.testing.assert_array_equal(rows["alert"].to_numpy(), (expected >= manifest["threshold"]).astype(int))
    found = comparisons(CASE, undisturbed.store)
    assert found
    known = latest_known(undisturbed.tables.read("labels")).set_index("event_id")["label"]
    first = found[0]
    of_pair = shadows[shadows["model_version"] == first.shadow]
    of_pair = of_pair[of_pair["day"].between(*first.days) & (of_pair["in_force"] == first.in_force)]
    assert first.events == of_pair["event_id"].isin(known.index).sum()
    assert first.positives == known.reindex(of_pair["event_id"]).sum()


def test_the_overview_is_one_page_that_asks_nobody(undisturbed: World) -> None:
    page = (undisturbed.root / "reports" / CASE.name / "overview" / "overview.html").read_text()
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert page.count("data:image/png;base64,") == 5
    found = overview_of(CASE, undisturbed.store)
    assert found.in_force
    assert found.in_force in page
    assert found.delivered == sum(entry.notes["raw_rows"] for entry in undisturbed.tables.ledger("flights").values())
    assert [line.name for line in found.tables] == ["flights", "weather", "features", "scores"]
    assert found.performance["estimated"].notna().all()
    assert found.performance["realised"].notna().sum() == len(undisturbed.tables.ledger("live_performance"))


def test_figures_of_a_day_are_numbers_that_dagster_plots(undisturbed: World) -> None:
    (record,) = undisturbed.instance.fetch_materializations(
        dg.AssetRecordsFilter(dg.AssetKey([CASE.name, "drift_report"]), asset_partitions=[WEEKS[1]]), limit=1
    ).records
    metadata = record.asset_materialization.metadata if record.asset_materialization else {}
    rows = undisturbed.tables.read("drift_report", [WEEKS[1]])
    assert metadata["score_psi"].value == pytest.approx(rows.loc[rows["feature"] == SCORE, "psi"].iloc[0])
    assert (
        metadata["features_drifted"].value == (rows["drifted"] == 1).sum() - rows.loc[rows["feature"] == SCORE, "drifted"].iloc[0]
    )
    assert "| PSI |" in str(metadata["moved_most"].value)


def retrain(world: World, day: Day) -> None:
    job = build_defs([CASE], store=world.store).resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(
        instance=world.instance,
        asset_selection=[dg.AssetKey([CASE.name, name]) for name in ("candidate_model", "evaluation_report", "deployed_model")],
        partition_key=CASE.week_of(day),
        tags={"ml_assets/retrain": day, "ml_assets/why": "retraining: drift"},
    )
    assert done.success


def test_a_model_made_out_of_turn_passes_the_gate_in_its_own_name_and_stays_in_its_place(make_world: MakeWorld) -> None:
    world = make_world(since="the end")
    day = shift(WEEKS[2], 3)
    before = dict(world.store.models.reports(CASE.name).items())
    versions = {each: in_force(world, each) for each in world.tables.ledger("scores")}
    retrain(world, day)
    reports = world.store.models.reports(CASE.name)
    assert set(reports) == {*before, day}
    assert {week: reports[week] for week in before} == before, "what was decided stays as it was"
    decision = world.store.models.decisions.all(CASE.name)[-1]
    assert (decision.effective, decision.kind in ("promoted", "refused")) == (day, True)
    expected = decision.version if decision.kind == "promoted" else versions[day]
    assert in_force(world, day) == expected
    assert {each: in_force(world, each) for each in versions if each < day} == {
        each: versions[each] for each in versions if each < day
    }
    _, manifest = world.store.models.load(CASE.name, decision.candidate or "")
    assert manifest["days"]["holdout"][1] < day

    runs = world.bring_up_to_date()
    assert world.store.models.reports(CASE.name).keys() == reports.keys()
    assert in_force(world, day) == expected
    assert len(world.store.models.decisions.all(CASE.name)) == decision.number, "nothing is decided twice"
    assert [week.week for week in weeks(CASE, world.store)] == sorted(reports)
    assert next(each.days for each in weeks(CASE, world.store) if each.week == WEEKS[2])[-1] == shift(day, -1)
    assert not [check for result in runs.results for check in result.failed]
