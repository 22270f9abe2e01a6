"""The OpenAPI document, from the declarations of the use cases: every field of a row with its type, unit, bounds and an example."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from ml_assets.serving.http import MOST_BYTES
from ml_assets.serving.scorer import Scorer
from ml_assets.use_case import Column, DType, Table, UseCase

Json = dict[str, Any]

_TYPES: Mapping[DType, Json] = {
    DType.STRING: {"type": "string", "minLength": 1, "maxLength": 1000},
    DType.INT64: {"type": "integer", "format": "int64"},
    DType.FLOAT64: {"type": "number", "format": "double"},
    DType.BOOL: {"type": "boolean"},
    DType.TIMESTAMP: {"type": "string", "format": "date-time"},
}
_EXAMPLES: Mapping[DType, Any] = {DType.STRING: "A1", DType.INT64: 1, DType.FLOAT64: 1.5, DType.BOOL: True}
_ERRORS: Mapping[str, str] = {
    "400": "The body is not JSON in UTF-8, or broke off.",
    "401": "No API key, or one that is not known.",
    "403": "The API key does not have the scope.",
    "404": "No such use case.",
    "408": "The body came too slowly.",
    "413": f"The body has more than {MOST_BYTES:,} bytes.",
    "422": "A field breaks a rule: `problems` names field, value and rule.",
    "429": "Too many requests with this API key.",
    "503": "No score can be given now; nothing was kept. `Retry-After` says when to try again.",
}


def document(scorers: Sequence[Scorer]) -> Json:
    """OpenAPI 3.0.3."""
    schemas: Json = dict(_common_schemas())
    paths: Json = dict(_service_paths())
    for scorer in scorers:
        paths |= _case_paths(scorer)
        for table in scorer.case.tables:
            if table.intake:
                schemas[_row_name(scorer.case, table)] = row_schema(scorer.case, table)
    return {
        "openapi": "3.0.3",
        "info": {
            "title": "ml_assets",
            "version": "1",
            "description": "Scores of events, with the features that a backfill would compute. Times are ISO 8601 with an offset from UTC.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def row_schema(case: UseCase, table: Table) -> Json:
    """A row as it is delivered."""
    columns = table.delivered
    required = [column.name for column in columns if not column.nullable and column.fill is None]
    return {
        "type": "object",
        "title": f"A row of {table.name}",
        "properties": {column.name: _field(column) for column in columns},
        "required": required,
        "additionalProperties": False,
        "example": {column.name: _example(case, column) for column in columns},
    }


def _field(column: Column) -> Json:
    field = dict(_TYPES[column.dtype])
    text = " ".join(part for part in (column.description, column.unit and f"[{column.unit}]") if part)
    if text:
        field["description"] = text
    if column.impossible != "blank":
        field |= {name: bound for name, bound in (("minimum", column.minimum), ("maximum", column.maximum)) if bound is not None}
        if column.allowed:
            field = {"type": "string", "enum": [*column.allowed]} | {key: field[key] for key in ("description",) if key in field}
    if column.nullable or column.fill is not None:
        field["nullable"] = True
        if "enum" in field:
            field["enum"] = [*field["enum"], None]
    return field


def _example(case: UseCase, column: Column) -> Any:
    if column.dtype is DType.TIMESTAMP:
        return (case.starts(case.start) + timedelta(days=60, hours=12)).isoformat()
    if column.allowed:
        return column.allowed[0]
    example = _EXAMPLES[column.dtype]
    if column.minimum is not None and column.dtype is not DType.STRING:
        example = max(example, column.minimum)
    return int(example) if column.dtype is DType.INT64 else example


def _case_paths(scorer: Scorer) -> Json:
    case = scorer.case
    events, labels = case.event_table, case.table(scorer.label_table)
    event, label = _row_name(case, events), _row_name(case, labels)
    options = [
        _parameter("reasons", ["alerts", "always", "never"], "Which scores come with the features that moved them most."),
        _parameter("features", ["false", "true"], "Whether the answer holds all features."),
    ]
    at, tags = f"/v1/{case.name}", {"tags": [case.title]}
    paths = {
        f"{at}/score": {
            "post": tags
            | {
                "summary": f"Score one event of {events.name}; it counts as seen",
                "description": "An event whose id is known gets the answer that it got, and is not counted again.",
                "parameters": options,
                "requestBody": _body(_ref(event)),
                "responses": _responses(_ref("Score")),
            }
        },
        f"{at}/score:batch": {
            "post": tags
            | {
                "summary": "Score up to 1,000 events, each as if those before it had come first; all of them or none",
                "parameters": options,
                "requestBody": _body(_list(_ref(event))),
                "responses": _responses({"type": "object", "properties": {"scores": {"type": "array", "items": _ref("Score")}}}),
            }
        },
        f"{at}/score:features": {
            "post": tags
            | {
                "summary": "Score of features that you have computed; nothing is looked up, kept or logged",
                "requestBody": _body(_ref("GivenFeatures")),
                "responses": _responses(_ref("BareScore")),
            }
        },
        f"{at}/events": {
            "post": tags
            | {
                "summary": f"Rows of {events.name} that happened and are not to be scored",
                "requestBody": _body(_one_or_many(event)),
                "responses": _responses(_ref("Observed")),
            }
        },
        f"{at}/labels": {
            "post": tags
            | {
                "summary": f"The truth about events: rows of {labels.name}",
                "requestBody": _body(_one_or_many(label)),
                "responses": _responses(_ref("Observed")),
            }
        },
        f"{at}/model": {"get": tags | {"summary": "The model in force, and why", "responses": _responses(_ref("Model"))}},
        f"{at}/feed": {
            "get": tags | {"summary": "The latest scores, as the page shows them", "responses": _responses(_ref("Feed"))}
        },
    }
    for table in case.tables:
        if table.intake and table.name not in (events.name, labels.name):
            paths[f"{at}/events/{table.name}"] = {
                "post": tags
                | {
                    "summary": f"Rows of {table.name}",
                    "requestBody": _body(_one_or_many(_row_name(case, table))),
                    "responses": _responses(_ref("Observed")),
                }
            }
    return paths


def _service_paths() -> Iterator[tuple[str, Json]]:
    tags = {"tags": ["Service"], "security": [{}]}
    yield (
        "/healthz",
        {"get": tags | {"summary": "Whether the process lives", "responses": {"200": _json({"type": "object"}, "It does.")}}},
    )
    ready = {
        "200": _json({"type": "object"}, "Every use case can score."),
        "503": _json({"type": "object"}, "One cannot; the answer says why."),
        "422": _json(_ref("Error"), _ERRORS["422"]),
    }
    yield "/readyz", {"get": tags | {"summary": "Whether every use case can score", "responses": ready}}
    text = {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    yield (
        "/metrics",
        {
            "get": {
                "tags": ["Service"],
                "summary": "For Prometheus",
                "responses": {"200": text, **_errors("401", "403", "422", "429")},
            }
        },
    )


def _common_schemas() -> Iterator[tuple[str, Json]]:
    number, text, flag = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
    reason = {"feature": text, "value": {"nullable": True, "oneOf": [number, text]}, "contribution": number}
    score = {
        "event_id": text,
        "event_time": {"type": "string", "format": "date-time"},
        "score": {"type": "number", "minimum": 0, "maximum": 1, "description": "Probability of a positive."},
        "alert": {"type": "boolean", "description": "Whether the score is at or above the threshold."},
        "threshold": number,
        "model_version": text,
        "unknown_entities": {"type": "array", "items": text, "description": "Of which nothing is known but this event."},
        "reasons": {
            "nullable": True,
            "type": "array",
            "items": _object(reason),
            "description": "What moved the score most, in log-odds; null where it was not asked for.",
        },
        "degraded": {"type": "boolean", "description": "True: the store was down, and all that it would know is missing."},
        "scored_at": {"type": "string", "format": "date-time"},
    }
    yield "Score", _object(score, also={"features": {"type": "object", "description": "With `features=true`."}})
    bare = {"score": number, "alert": flag, "threshold": number, "model_version": text}
    yield "BareScore", _object(bare)
    yield "Observed", _object({"observed": {"type": "integer"}})
    value = {"nullable": True, "oneOf": [{"type": "number"}, {"type": "string"}]}
    yield (
        "GivenFeatures",
        {
            "type": "object",
            "required": ["features"],
            "additionalProperties": False,
            "properties": {"features": {"type": "object", "additionalProperties": value, "description": "All that `model` lists."}},
        },
    )
    any_object = {"type": "object"}
    yield (
        "Model",
        _object(
            {
                "model_version": text,
                "in_force_since": text,
                "threshold": number,
                "decision": any_object,
                "refused": any_object,
                "features": {"type": "array", "items": any_object},
            }
        ),
    )
    yield "Feed", any_object
    problem = _object({"field": text, "value": {}, "rule": text})
    yield (
        "Error",
        _object({"error": _object({"code": text, "message": text}, also={"problems": {"type": "array", "items": problem}})}),
    )


def _object(properties: Json, *, also: Json | None = None) -> Json:
    return {"type": "object", "properties": properties | (also or {}), "required": list(properties)}


def _row_name(case: UseCase, table: Table) -> str:
    return f"{case.name}.{table.name}"


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": 1000}


def _one_or_many(row: str) -> Json:
    return {"oneOf": [_ref(row), _list(_ref(row))]}


def _body(schema: Json) -> Json:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _parameter(name: str, values: list[str], description: str) -> Json:
    schema = {"type": "string", "enum": values, "default": values[0]}
    return {"name": name, "in": "query", "required": False, "description": description, "schema": schema}


def _responses(schema: Json) -> Json:
    return {"200": _json(schema, "Done."), **_errors(*_ERRORS)}


def _errors(*statuses: str) -> Json:
    return {status: _json(_ref("Error"), _ERRORS[status]) for status in statuses}


def _json(schema: Json, description: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
