"""The document at /openapi.json says what the service does: to thousands of generated requests, and to its own examples."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import numpy as np
import pandas as pd
import pytest
import requests
import schemathesis

from ml_assets.folders import LocalFolder
from ml_assets.orchestration.publish import schema_of
from ml_assets.serving.openapi import row_schema
from ml_assets.stages.clean import clean
from ml_assets.stages.features import compute
from ml_assets.stages.ingest import ingested
from ml_assets.stages.intake import InvalidRowError, RowIntake
from ml_assets.stages.package import files_of, manifest_of
from ml_assets.stages.train import Candidate, Recipe, fit
from ml_assets.storage.models import ModelStore
from ml_assets.storage.tables import Tables
from ml_assets.use_case import day_range
from ml_assets.use_cases import USE_CASES, find
from ml_assets_tests.serving.conftest import Service, World, free_port
from ml_assets_tests.stages.test_intake import ODD, ODD_NUMBERS, tables

HOOKS = """
from datetime import UTC, datetime, timedelta
import schemathesis
from hypothesis import strategies as st

seen = datetime.fromisoformat({seen!r}).replace(tzinfo=None)
near = st.datetimes(seen - timedelta(hours=12), seen + timedelta(hours=12), timezones=st.just(UTC))
schemathesis.openapi.format("date-time", st.one_of(near, near, st.datetimes(timezones=st.just(UTC))).map(datetime.isoformat))

@schemathesis.hook
def filter_case(context, case):
    # An event of now, such as one with the time of an answer, gets 503, rightly: the store has seen nothing for years.
    return str(datetime.now(UTC).year) not in repr(case.body)
"""
"""Most times are such that an event can be scored: one of any year would hardly ever be."""
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,"
    "negative_data_rejection,unsupported_method,allow_header_conformance"
)


@pytest.fixture(scope="module")
def service(serving_in: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving_in(tmp_path_factory.mktemp("service")) as started:
        yield started


def document_of(service: Service) -> dict[str, Any]:
    return dict(requests.get(f"{service.url}/openapi.json", timeout=10).json())


def generated(service: Service, folder: Path, shares: list[tuple[list[str], int]]) -> Counter[tuple[str, str, int]]:
    """Sends generated requests, valid and not; how many were answered how. Fails where an answer is not as documented.

    Args:
        shares: for each process that generates them, its operations as options and the number of cases for each.
    """
    seen = requests.get(f"{service.url}/readyz", timeout=10).json()["use_cases"][service.world.case.name]["seen_until"]
    (folder / "hooks.py").write_text(HOOKS.format(seen=seen))
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{service.url}/openapi.json", "--seed", "4", "--checks", CHECKS]
    command += ["--phases", "examples,coverage,fuzzing", "--no-color", "--no-shrink", "--report", "har"]
    reports = [folder / f"{number}.har" for number in range(len(shares))]
    running = [
        subprocess.Popen(
            [*command, "--report-har-path", str(report), "--max-examples", str(examples), *operations],
            cwd=folder,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for report, (operations, examples) in zip(reports, shares, strict=True)
    ]
    said = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0] * len(shares), "\n".join(said)
    entries = [entry for report in reports for entry in json.loads(report.read_text())["log"]["entries"]]
    return Counter(
        (each["request"]["method"], urlsplit(each["request"]["url"]).path, each["response"]["status"]) for each in entries
    )


def test_the_service_does_what_its_document_says(service: Service, tmp_path: Path, world: World) -> None:
    """With what flights get below more than 3,500 cases; those of many features take long to generate."""
    several, features = "/v1/card_fraud/(score:batch|labels)", "/v1/card_fraud/score:features"
    answered = generated(
        service,
        tmp_path,
        [
            (["--exclude-path-regex", f"{several}|{features}"], 120),
            (["--include-path-regex", several], 120),
            (["--include-path", features], 60),
        ],
    )
    assert sum(answered.values()) >= 1200
    assert {status for _, _, status in answered} <= {200, 400, 405, 413, 422}
    for path in ("score", "score:batch", "score:features", "events", "labels"):
        for status in (200, 422):
            assert answered["POST", f"/v1/card_fraud/{path}", status] >= 50, (path, status)
    still_right(service, world)
    assert "Traceback" not in service.log.read_text()


def still_right(service: Service, world: World) -> None:
    """Whatever was sent before, features get the score that the model gives them."""
    model = world.model(requests.get(f"{service.case_url}/model", timeout=10).json()["model_version"])
    features = dict.fromkeys(model.inputs, 1.0)
    answer = requests.post(f"{service.case_url}/score:features", json={"features": features}, timeout=10).json()
    assert answer["score"] == model.predict(pd.DataFrame([features]))[0]


def test_the_document_is_openapi(service: Service) -> None:
    document = document_of(service)
    schemathesis.openapi.from_dict(document).validate()
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)


# Examples ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Two months of flights, a model that reads texts, no own `derive` for single rows."""
    root = tmp_path_factory.mktemp("flights")
    case = find("flight_delays", {})
    days, served = day_range("2013-01-01", "2013-03-01"), day_range("2013-02-25", "2013-03-01")
    tables = {}
    for table in case.tables:
        of = days if table.daily else ["all"]
        tables[table.name] = clean(ingested(table.source({}).read(of), table, of), table).rows
        Tables(root=LocalFolder(root), case=case.name).publish(
            table.name, tables[table.name], schema=schema_of(table.columns), inputs=dict.fromkeys(of, "test")
        )
    events = tables[case.events]
    asked = events[events["day"].isin(served)]
    rows, labels = compute(case, asked, tables), asked["late"].to_numpy().astype(np.float64)
    training = replace(case.training, trees=20, parameters={**case.training.parameters, "num_threads": 1})

    def fitted(family: Any) -> Any:
        return fit(family, rows, labels, features=case.features, training=training, climatology=case.climatology)

    model = fitted("lightgbm")
    candidate = Candidate(
        model=model,
        baseline=fitted("climatology"),
        climatology=fitted("climatology"),
        threshold=0.5,
        training_rows=len(rows),
        positives=int(labels.sum()),
        recipe=Recipe(family="lightgbm", training=training, inverse_penalty=None, trials=()),
    )
    spans = {"training": (served[0], served[-1]), "holdout": (served[0], served[-1])}
    manifest = manifest_of(case, candidate, week="2013-02-25", as_of="2013-02-25", days=spans, contents={}, holdout=rows)
    models = ModelStore(root=LocalFolder(root))
    models.deploy(case.name, "2013-02-25", models.save(case.name, files_of(candidate), manifest), {"kind": "promoted"})
    return World(root=root, settings={}, case=case, tables=tables, features=rows)


@contextmanager
def serving_flights(flights: World, folder: Path) -> Iterator[Service]:
    root = folder / "flights"
    root.mkdir()
    for name in ("models", "deployments"):
        shutil.copytree(flights.root / name, root / name)
    flights.load(str(folder / "flights_online"), day_range("2013-01-01", "2013-02-28"))
    service = Service(
        world=flights, store=str(folder / "flights_online"), port=free_port(), options=(), log=folder / "flights.log", root=root
    )
    try:
        yield service.start()
    finally:
        service.stop()


def examples_are_answered(service: Service) -> Iterator[str]:
    """Sends the example of every body as it is; which schemas they were of."""
    document = document_of(service)
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        if "post" not in operations:
            continue
        body = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
        for schema in body.get("oneOf", [body]):
            row = (schema.get("items") or schema)["$ref"].rpartition("/")[2]
            example = schemas[row]["example"]
            answer = requests.post(f"{service.url}{path}", json=[example] if "items" in schema else example, timeout=10)
            assert answer.status_code == 200, (path, answer.text)
            yield row


def test_its_examples_can_be_sent_as_they_are(service: Service) -> None:
    rows = set(examples_are_answered(service))
    assert rows == {"card_fraud.transactions", "card_fraud.chargebacks", "card_fraud.given_features"}


def test_so_can_those_of_flights_and_their_document_holds_too(flights: World, tmp_path: Path) -> None:
    with serving_flights(flights, tmp_path) as service:
        rows = set(examples_are_answered(service))
        assert rows == {"flight_delays.flights", "flight_delays.weather", "flight_delays.given_features"}
        answered = generated(service, tmp_path, [([], 20)])
        assert sum(answered.values()) >= 2500
        assert {status for _, _, status in answered} <= {200, 400, 405, 413, 422}
        assert "Traceback" not in service.log.read_text()


def test_an_example_of_an_empty_store_says_a_time_of_the_case() -> None:
    """There is nothing after which it could be."""
    for case in USE_CASES:
        for table in case.tables:
            if table.intake:
                at = datetime(2013, 3, 2, 15, tzinfo=UTC)
                RowIntake(table).take(row_schema(case, table, at=at)["example"])


# Rows -------------------------------------------------------------------------------------------------------------------------


def plain(schema: Any) -> Any:
    """JSON Schema of OpenAPI 3.0, which has a word of its own for null."""
    if isinstance(schema, list):
        return [plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: plain(value) for name, value in schema.items() if name != "nullable"}
    return found | ({"type": [found["type"], "null"]} if schema.get("nullable") else {})


@pytest.mark.parametrize("name", ["transactions", "chargebacks", "flights", "weather"])
def test_what_is_taken_is_documented(name: str) -> None:
    """A row that the document forbids would be refused; of an odd value that is taken, the document says that it may be sent."""
    table, sound = tables()[name]
    case = next(case for case in USE_CASES if any(each.name == name for each in case.tables))
    schema = plain(row_schema(case, table, at=datetime(2018, 5, 20, 12, tzinfo=UTC)))
    validator = jsonschema.Draft202012Validator(schema)
    intake, taken = RowIntake(table), 0
    for column in table.delivered:
        for value in ODD.get(column.dtype, ODD_NUMBERS):
            row = {**sound, column.name: value}
            try:
                intake.take(row)
            except InvalidRowError:
                continue
            taken += 1
            assert column.allowed or validator.is_valid(row), (column.name, value)
    assert taken > 50
