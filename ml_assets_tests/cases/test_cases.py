"""Each input of `make_cases.py`, from the file to features and labels, has the outcome that README.md calls right.

Scores are in `end_to_end/test_a_day_without_labels.py`, what is too good in `end_to_end/test_weeks_that_cannot_be_judged.py`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.orchestration import daily
from ml_assets.scaffold.infer import infer
from ml_assets.scaffold.roles import CannotInferError
from ml_assets.sources.mapped import MappedFiles
from ml_assets.use_case import UseCase, day_range
from ml_assets_tests.cases.make_cases import CASES
from ml_assets_tests.generated_cases import NAME, answers, generated
from ml_assets_tests.pipelines import Pipeline, without_expectations

Tables = dict[str, pd.DataFrame]
FILES = f"ML_ASSETS_{NAME.upper()}_FILES"
LAST, COUNT = "2024-02-15", 2200


@pytest.fixture
def inputs(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The folder of the case after which a test is named, `test_<case>…`."""
    name = max((each for each in CASES if request.node.name.startswith(f"test_{each}")), key=len)
    folder = tmp_path / name
    folder.mkdir()
    CASES[name](folder)
    return folder


@contextmanager
def pipeline(file: Path, monkeypatch: pytest.MonkeyPatch, deliveries: Path | None = None, **given: Any) -> Iterator[Pipeline]:
    """What `new` makes of a file, and what becomes of the deliveries: the file itself, or those of a TOML file."""
    with generated(file, **given) as (case, _):
        if deliveries is not None:
            monkeypatch.setenv(FILES, str(deliveries))
        configured: UseCase = case.configure(case, {FILES: str(deliveries)} if deliveries else {}) if case.configure else case
        yield Pipeline(configured)


def tables_of(file: Path, monkeypatch: pytest.MonkeyPatch, deliveries: Path | None = None, **given: Any) -> Tables:
    with pipeline(file, monkeypatch, deliveries, **given) as made:
        return made.made()


def whole(tables: Tables) -> None:
    """Every order is clean, has features, and a label if it was known by the last day."""
    assert len(tables["events"]) == len(tables["features"]) == COUNT
    assert tables["rejected_events"].empty
    assert len(tables["labels"]) == (tables["ground_truth"]["known_at"] < pd.Timestamp("2024-02-16", tz="UTC")).sum() > 2100


@pytest.mark.parametrize("file", ["orders.csv", "milliseconds.csv"])
def test_large_integers(inputs: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    tables = tables_of(inputs / file, monkeypatch)
    whole(tables)
    rows = tables["events"].merge(tables["features"], on="event_id", suffixes=("", "_feature"))
    for name in ["loan", "signup_seconds", *(["signup_ms"] if file == "milliseconds.csv" else [])]:
        feature = f"{name}_std_7d_by_customer_id"
        for at in range(0, len(rows), 7):
            row = rows.iloc[at]
            seen = rows[
                (rows["customer_id"] == row["customer_id"])
                & (rows["ordered_at"] <= row["ordered_at"])
                & (rows["ordered_at"] > row["ordered_at"] - pd.Timedelta(days=7))
            ]
            exact = np.std(seen[name].to_numpy(dtype=object) - int(seen[name].iloc[0]), dtype=np.float64)
            assert row[feature] == pytest.approx(exact, rel=1e-12), (name, at)
        assert (rows[feature] > 0).any() == (name == "loan"), "a customer signed up once"


@pytest.mark.parametrize("file", ["code.csv", "inches.csv", "backslash.csv", "braces.csv"])
def test_headers_are_data(inputs: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    monkeypatch.chdir(inputs)
    given = {"positive": "Y"} if file == "backslash.csv" else {}
    tables = tables_of(inputs / file, monkeypatch, **given)
    whole(tables)
    assert not (inputs / "ran").exists()
    plain = pd.read_csv(inputs / "inches.csv").iloc[:, 4]
    quantities = [name for name in tables["events"] if tables["events"][name].tolist() == plain.tolist()]
    assert len(quantities) == 1, "the column with the odd name"
    assert 0.2 < tables["labels"]["label"].mean() < 0.25


def test_label_not_known_yet(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tables_of(inputs / "orders.csv", monkeypatch, inputs / "files.toml")
    whole(tables)
    orders = tables["events"].loc[tables["events"]["day"] == LAST, "event_id"]
    assert len(orders) == (tables["features"]["day"] == LAST).sum() == len(pd.read_csv(inputs / "days" / f"{LAST}.csv"))
    assert not tables["ground_truth"]["event_id"].isin(orders).any()
    known = pd.read_csv(inputs / "orders.csv").set_index("order_id")["returned"]
    assert (tables["labels"]["label"].to_numpy() == known.loc[tables["labels"]["event_id"].astype(int)].to_numpy()).all()


def test_rows_days_late(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pipeline(inputs / "orders.csv", monkeypatch, inputs / "files.toml") as made:
        together = made.made()
        monkeypatch.setattr(daily, "audit", without_expectations)  # which change no row
        one_by_one = made.made([[day] for day in made.days[::-1]])
    whole(together)
    for name, rows in together.items():
        pd.testing.assert_frame_equal(one_by_one[name], rows, obj=name)
    late = together["events"]["ordered_at"].dt.strftime("%Y-%m-%d") < together["events"]["day"]
    assert 100 < late.sum() < 250


def test_id_that_repeats(inputs: Path) -> None:
    with pytest.raises(CannotInferError, match=r"rows \d+ and \d+ are different events with the same customer_id"):
        infer(inputs / "orders.csv", answers(id=("customer_id",)))


def test_two_spellings_of_an_id(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tables_of(inputs / "orders.csv", monkeypatch)
    whole(tables)
    assert tables["events"]["customer_id"].nunique() == 100
    count = tables["features"].groupby("day")["events_count_7d_by_customer_id"].mean()
    assert count["2024-01-26"] == pytest.approx(count["2024-01-23"], rel=0.2)


def test_two_spellings_of_an_id_that_is_declared_as_text_are_red(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pd.read_csv(inputs / "orders.csv", dtype={"customer_id": str})
    rows["customer_id"] = "c" + rows["customer_id"]  # of the sample
    rows.to_csv(inputs / "sample.csv", index=False)
    (inputs / "days").mkdir()
    for day, of_day in pd.read_csv(inputs / "orders.csv", dtype=str).groupby(rows["ordered_at"].str[:10]):
        of_day.to_csv(inputs / "days" / f"{day}.csv", index=False)
    columns = ", ".join(f'{name} = "{name}"' for name in rows)
    text = (
        f'start = "2024-01-01"\nend = "2024-02-16"\nfolder = "days"\n\n[events]\nfiles = "{{day}}.csv"\ncolumns = {{{columns}}}\n'
    )
    (inputs / "files.toml").write_text(text)
    with pipeline(inputs / "sample.csv", monkeypatch, inputs / "files.toml") as made:
        tables = made.made()
        red = made.red("events")
    assert "2024-01-25" in red
    assert "customer_id is written as on the days before" in red["2024-01-25"]
    assert "2024-01-25" not in tables["days of events"]["day"].tolist()
    assert "2024-01-24" in tables["days of events"]["day"].tolist()


def test_index_column(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with generated(inputs / "orders.csv") as (case, inferred):
        whole(Pipeline(case).made())
    assert inferred.dialect_settings == {"index": True}
    assert any("index" in line for line in inferred.dialect.explanations()), "said"
    assert "unnamed" not in " ".join(column.source for column in inferred.known_with_event)


def test_column_called_event_id(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tables_of(inputs / "logons.csv", monkeypatch)
    whole(tables)
    kinds = pd.read_csv(inputs / "logons.csv")["event_id"]
    same = [name for name in tables["events"] if tables["events"][name].astype(str).tolist() == kinds.astype(str).tolist()]
    assert len(same) == 1
    assert tables["events"]["event_id"].is_unique


@pytest.mark.parametrize("file", ["nan.parquet", "na.csv", "thousands.csv", "comma.csv"])
def test_missing_tokens(inputs: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    tables = tables_of(inputs / file, monkeypatch)
    whole(tables)
    amount = tables["events"]["amount"]
    plain = {"nan.parquet": "comma.csv", "na.csv": "comma.csv"}.get(file)
    assert amount.dtype == "float64"
    if plain:
        assert 40 <= amount.isna().sum() <= 100
        other = tables_of(inputs / plain, monkeypatch)["events"]["amount"]
        assert amount.dropna().equals(other[amount.notna()])
    else:
        assert amount.notna().all()
        shift = 1000 if file == "thousands.csv" else 0
        texts = pd.read_csv(inputs / "na.csv", keep_default_na=False)["amount"]
        expected = pd.to_numeric(texts, errors="coerce")
        assert (amount - shift)[expected.notna().to_numpy()].round(2).tolist() == expected.dropna().round(2).tolist()


@pytest.mark.parametrize(("file", "text"), [("1970.csv", "1970-01-01"), ("2099.csv", "2099-12-31"), ("9999.csv", "9999-12-31")])
def test_one_wrong_date(inputs: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str) -> None:
    tables = tables_of(inputs / file, monkeypatch)
    assert tables["days of events"]["day"].tolist() == day_range("2024-01-01", LAST)
    assert len(tables["events"]) == COUNT - 1
    [reason] = tables["rejected_events"]["reason"]
    assert reason.startswith("ordered_at: ")
    assert text in reason


def test_one_wrong_date_completes_no_day_that_never_came(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pipeline(inputs / "1970.csv", monkeypatch, inputs / "files.toml") as made:
        tables = made.made([day_range("2024-01-01", "2024-02-20")])
        assert tables["days of raw_events"]["day"].max() == LAST
        assert "2024-02-16" in made.red("raw_events")
    [row] = tables["rejected_events"].itertuples()
    assert (row.day, row.source_file, row.source_row) == ("2024-02-14", "2024-02-14.csv", 4)


def test_a_row_delivered_twice(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pipeline(inputs / "orders.csv", monkeypatch, inputs / "files.toml") as made:
        tables = made.made()
        assert not made.red("events")
        assert not made.red("labels")
    assert len(tables["events"]) == len(tables["features"]) == COUNT
    [row] = tables["rejected_events"].itertuples()
    assert (row.day, row.cause) == ("2024-01-21", "duplicate")
    assert row.reason == "duplicate of row 6 of 2024-01-20.csv (2024-01-20)"
    assert "2024-01-21" in tables["days of labels"]["day"].tolist()


def test_a_row_without_a_time(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = tables_of(inputs / "orders.csv", monkeypatch, inputs / "files.toml")
    assert tables["days of events"]["day"].tolist() == day_range("2024-01-01", LAST)
    assert len(tables["events"]) == COUNT - 1
    [row] = tables["rejected_events"].itertuples()
    assert (row.day, row.source_row, row.reason) == ("2024-02-14", 4, "ordered_at: missing")


def test_dates_without_a_time(inputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with generated(inputs / "dated.csv") as (case, inferred):
        tables = Pipeline(case).made()
    assert any("without a time of day" in each.why for each in inferred.inferences)
    whole(tables)
    events, truth = tables["events"], tables["ground_truth"]
    rows = events.merge(tables["features"], on="event_id", suffixes=("", "_feature"))
    assert (rows["ordered_at"] == rows["ordered_at"].dt.normalize()).all(), "asked when its date begins"
    for row in rows.iloc[::11].itertuples():
        mine = truth[truth["customer_id"] == row.customer_id]
        # A label is known a day after the end of its order's date: for an order of the 10th those of the 8th and before.
        before = mine[mine["ordered_at"] < row.ordered_at - timedelta(days=1)]
        seen = before[before["ordered_at"] >= row.ordered_at - timedelta(days=8)]
        assert row.label_count_7d_by_customer_id in (len(seen), len(seen) - (seen["ordered_at"] == seen["ordered_at"].min()).sum())
        of_date = events[(events["customer_id"] == row.customer_id) & (events["ordered_at"] == row.ordered_at)]
        assert len(of_date) >= 1
        assert (
            row.events_count_24h_by_customer_id
            == ((events["customer_id"] == row.customer_id) & (events["ordered_at"] == row.ordered_at - timedelta(days=1))).sum()
        )


@pytest.mark.parametrize("file", ["postgres.csv", "bigquery.csv", "excel.csv", "semicolon.csv", "cp1252.csv", "uuid.parquet"])
def test_other_exports(inputs: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    given = {"entities": ()} if file == "uuid.parquet" else {}
    tables = tables_of(inputs / file, monkeypatch, **given)
    whole(tables)
    exact = pd.to_datetime(pd.read_csv(inputs / "semicolon.csv", sep=";")["ordered_at"])
    known_to = {"excel.csv": "min"}.get(file, "s")
    assert tables["events"]["ordered_at"].dt.floor(known_to).tolist() == exact.dt.floor(known_to).tolist()
    if file == "cp1252.csv":
        assert set(tables["events"]["channel"]) == {"web", "app", "café"}


def test_stray_quotes(inputs: Path) -> None:
    columns = {name: name for name in ("id", "at", "customer", "amount")}
    source = MappedFiles(folder=inputs / "days", pattern="{day}.csv", columns=columns, day_column="at", timezone="UTC")
    batch = source.read(["2024-01-01"])
    assert "row 6" in batch.problems["2024-01-01"]
    assert batch.rows.empty
