"""The OpenAPI document, from the declarations of the use cases: every field of a row with its type, unit, bounds and an example."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from ml_assets.escape import markdown
from ml_assets.serving.http import MOST_BYTES
from ml_assets.serving.scorer import Scorer
from ml_assets.stages.clean import PATTERNS
from ml_assets.stages.intake import EPOCH, MICROSECOND, MOST_TEXT
from ml_assets.stages.kept import ID_BYTES
from ml_assets.stages.online_state import SINCE_EVER
from ml_assets.use_case import Column, DType, Table, UseCase

Json = dict[str, Any]

_SPACE = r"[\s\u001c-\u001f\u0085]"
"""White space as rows are read, which ignore it around a text."""
_NOT_BLANK = r"[^\s\u001c-\u001f\u0085]"
_DIGITS = 18
_NUMBERS_IN_TEXT: Mapping[DType, str] = {
    **{dtype: PATTERNS[dtype].removeprefix("^").removesuffix("$") for dtype in (DType.INT64, DType.FLOAT64)},
    DType.BOOL: "([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ssſ][Ee]|1|0)",  # "whatever the case" is not known to JSON Schema
}
_NUMBERS: Mapping[DType, Json] = {
    DType.INT64: {"type": "integer", "format": "int64"},
    DType.FLOAT64: {"type": "number", "format": "double"},
    DType.BOOL: {"type": "boolean"},
}
_EXAMPLES: Mapping[DType, Any] = {DType.STRING: "A1", DType.INT64: 1, DType.FLOAT64: 1.5, DType.BOOL: True}
_ERRORS: Mapping[str, str] = {
    "400": "The body is not JSON in UTF-8, or broke off.",
    "401": "No API key, or one that is not known.",
    "403": "The API key does not have the scope.",
    "408": "The body came too slowly.",
    "413": f"The body has more than {MOST_BYTES:,} bytes.",
    "422": "The request breaks rules: `problems` names the field, its value and the rule for each.",
    "429": "Too many requests with this API key. `Retry-After` says in how many seconds to try again.",
    "503": "No score can be given now. `Retry-After` says in how many seconds to try again; what was kept nevertheless counts once.",
}
_OF_BODIES = ("400", "408", "413")
_HEADERS: Mapping[str, Json] = {
    status: {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}} for status in ("429", "503")
}
_ROWS = (
    "White space around a text is ignored, and a number may be sent as a text. Of a field that comes twice, the last counts. "
    "The times of the example are those of an event that can be scored now."
)


def document(scorers: Sequence[Scorer]) -> Json:
    """OpenAPI 3.0.3, with examples that can be sent as they are."""
    schemas: Json = dict(_common_schemas())
    paths: Json = dict(_service_paths())
    for scorer in scorers:
        paths |= _case_paths(scorer)
        schemas[_features_name(scorer.case)] = features_schema(scorer)
        for table in scorer.case.tables:
            if table.intake:
                schemas[_row_name(scorer.case, table)] = row_schema(scorer.case, table, at=_example_time(scorer))
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


def row_schema(case: UseCase, table: Table, *, at: datetime) -> Json:
    """A row as it is delivered; the example is one of an event at `at`, a full hour."""
    columns = table.delivered
    required = [column.name for column in columns if not column.nullable and column.fill is None]
    key = " and ".join(table.key)
    return {
        "type": "object",
        "title": f"A row of {table.name}",
        "description": f"{_ROWS} What becomes the row's {key} has from 1 to {ID_BYTES} bytes in UTF-8.",
        "properties": {column.name: _field(column) for column in columns},
        "required": required,
        "additionalProperties": False,
        "example": {column.name: _example(column, at.astimezone(ZoneInfo(case.timezone))) for column in columns},
    }


def features_schema(scorer: Scorer) -> Json:
    """The features that the model in force reads, or will, as far as is known now."""
    live, case = scorer.in_force.live, scorer.case
    names = live.names if live else set(case.model_features)
    columns = [column for column in case.features.columns if column.name in names]
    return {
        "type": "object",
        "title": "Features of one event",
        "required": ["features"],
        "additionalProperties": False,
        "properties": {
            "features": {
                "type": "object",
                "description": "All that the model reads, as `model` lists them; null where it is not known.",
                "properties": {column.name: _feature(column) for column in columns},
                "required": [column.name for column in columns],
                "additionalProperties": False,
            }
        },
        "example": {"features": {column.name: _EXAMPLES[column.dtype] for column in columns}},
    }


def _feature(column: Column) -> Json:
    said = _description(column)
    field = {"type": "string" if column.dtype is DType.STRING else "number", "nullable": True}
    return field | ({"description": said} if said else {})


def _field(column: Column) -> Json:
    """What may be sent for a column: a value of its type, or a text that says one."""
    optional = column.nullable or column.fill is not None
    nullable = {"nullable": True} if optional else {}
    if column.dtype is DType.TIMESTAMP:
        forms: list[Json] = [{"type": "string", "format": form} for form in ("date-time", *(("date",) if column.dates else ()))]
        field: Json = {**(forms[0] if len(forms) == 1 else {"anyOf": forms}), **nullable}
    elif column.allowed and column.impossible != "blank":
        field = {"type": "string", "enum": [*column.allowed, *([None] if optional else [])], **nullable}
    elif column.dtype is DType.STRING:
        text = {"type": "string", "maxLength": MOST_TEXT, **({} if optional else {"pattern": _NOT_BLANK})}
        field = {"anyOf": [{**text, **nullable}, {"type": "integer"}]}
    else:
        number = _NUMBERS[column.dtype] | _bounds(column) | nullable
        blank = "?" if optional else ""
        in_text = {"type": "string", "pattern": f"^{_SPACE}*({_NUMBERS_IN_TEXT[column.dtype]}){blank}{_SPACE}*$"}
        flags = [{"type": "integer", "enum": [0, 1]}] if column.dtype is DType.BOOL else []
        field = {"anyOf": [number, *flags, in_text]}
    return field | ({"description": said} if (said := _description(column)) else {})


def _bounds(column: Column) -> Json:
    if column.impossible == "blank" or column.dtype is DType.BOOL:
        return {}
    most = 10**_DIGITS - 1 if column.dtype is DType.INT64 else None
    low = -most if column.minimum is None and most else column.minimum
    high = most if column.maximum is None else column.maximum
    return {name: bound for name, bound in (("minimum", low), ("maximum", high)) if bound is not None}


def _description(column: Column) -> str:
    return " ".join(part for part in (column.description, column.unit and f"[{markdown(column.unit)}]") if part)


def _example_time(scorer: Scorer) -> datetime:
    """A full hour, soon after what the store has seen: an event then can be scored, and is not older than what was dropped."""
    case = scorer.case
    if scorer.seen_until == SINCE_EVER:
        seen = case.starts(case.start).to_pydatetime() + timedelta(days=60)
    else:
        seen = EPOCH + scorer.seen_until * MICROSECOND
    # The event can be two hours before the time in the row, as with a flight that is asked about before it departs.
    return (seen + timedelta(hours=3)).astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _example(column: Column, at: datetime) -> Any:
    """Parts of dates and clock times belong together: they all say `at`, in local time."""
    if column.dtype is DType.TIMESTAMP:
        return at.astimezone(UTC).isoformat()
    if column.allowed:
        return column.allowed[0]
    if column.name in ("year", "month", "day", "hour", "minute"):
        example: Any = getattr(at, column.name)
    elif column.description.startswith("hhmm"):
        example = at.hour * 100 + at.minute
    else:
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
                "operationId": f"{case.name}_score",
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
                "operationId": f"{case.name}_score_batch",
                "summary": "Score up to 1,000 events, each as if those before it had come first",
                "description": "None is scored if one is invalid; a problem names the row by its number, from 0: `3.amount`. After a 503, "
                "send all of them again: those that were scored before get the same answer, and count once.",
                "parameters": options,
                "requestBody": _body(_list(_ref(event))),
                "responses": _responses(_object({"scores": {"type": "array", "items": _ref("Score")}})),
            }
        },
        f"{at}/score:features": {
            "post": tags
            | {
                "operationId": f"{case.name}_score_features",
                "summary": "Score of features that you have computed; nothing is looked up, kept or logged",
                "requestBody": _body(_ref(_features_name(case))),
                "responses": _responses(_ref("BareScore")),
            }
        },
        f"{at}/events": {
            "post": tags
            | {
                "operationId": f"{case.name}_events",
                "summary": f"Rows of {events.name} that happened and are not to be scored",
                "description": "Up to 1,000, all of them or none. A row whose id is known takes the place of the one before.",
                "requestBody": _body(_one_or_many(event)),
                "responses": _responses(_ref("Observed")),
            }
        },
        f"{at}/labels": {
            "post": tags
            | {
                "operationId": f"{case.name}_labels",
                "summary": f"The truth about events: rows of {labels.name}",
                "requestBody": _body(_one_or_many(label)),
                "responses": _responses(_ref("Observed")),
            }
        },
        f"{at}/model": {
            "get": tags
            | {
                "operationId": f"{case.name}_model",
                "summary": "The model in force, and why",
                "responses": _responses(_ref("Model"), body=False),
            }
        },
        f"{at}/feed": {
            "get": tags
            | {
                "operationId": f"{case.name}_feed",
                "summary": "The latest scores, as the page shows them",
                "responses": _responses(_ref("Feed"), body=False),
            }
        },
    }
    for table in case.tables:
        if table.intake and table.name not in (events.name, labels.name):
            paths[f"{at}/events/{table.name}"] = {
                "post": tags
                | {
                    "operationId": f"{case.name}_events_{table.name}",
                    "summary": f"Rows of {table.name}",
                    "requestBody": _body(_one_or_many(_row_name(case, table))),
                    "responses": _responses(_ref("Observed")),
                }
            }
    return paths


def _service_paths() -> Iterator[tuple[str, Json]]:
    tags = {"tags": ["Service"], "security": [{}]}
    alive = {"200": _json(_object({"status": {"type": "string", "enum": ["alive"]}}), "It does."), **_errors("422")}
    yield "/healthz", {"get": tags | {"operationId": "healthz", "summary": "Whether the process lives", "responses": alive}}
    ready = {
        "200": _json(_ref("Readiness"), "Every use case can score."),
        "503": _json(_ref("Readiness"), "One cannot; the answer says why."),
        **_errors("422"),
    }
    yield "/readyz", {"get": tags | {"operationId": "readyz", "summary": "Whether every use case can score", "responses": ready}}
    text = {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    yield (
        "/metrics",
        {
            "get": {
                "tags": ["Service"],
                "operationId": "metrics",
                "summary": "For Prometheus",
                "responses": {"200": text, **_errors("401", "403", "422", "429")},
            }
        },
    )


def _common_schemas() -> Iterator[tuple[str, Json]]:
    number, text, flag = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
    text_or_none, time_or_none = text | {"nullable": True}, text | {"format": "date-time", "nullable": True}
    value = {"anyOf": [{"type": "number", "nullable": True}, text]}
    reason = {"feature": text, "value": value, "contribution": number}
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
    features = {"type": "object", "additionalProperties": value, "description": "With `features=true`."}
    yield "Score", _object(score, also={"features": features})
    bare = {"score": number, "alert": flag, "threshold": number, "model_version": text}
    yield "BareScore", _object(bare)
    yield "Observed", _object({"observed": {"type": "integer"}})
    any_object = {"type": "object"}
    yield (
        "Model",
        _object(
            {
                "model_version": text,
                "in_force_since": text,
                "threshold": number,
                "decision": {**any_object, "description": "Why this model is in force."},
                "refused": {
                    "type": "object",
                    "additionalProperties": text,
                    "description": "Why a deployed version does not score.",
                },
                "features": {"type": "array", "items": _object({"name": text, "dtype": text, "unit": text_or_none})},
            }
        ),
    )
    yield "Feed", any_object
    readiness = {
        "ready": flag,
        "problems": {"type": "array", "items": text},
        "model_version": text_or_none,
        "answers_from": {**time_or_none, "description": "Events from then on can be scored; null: whenever they were."},
        "seen_until": {**time_or_none, "description": "The latest event that the store has seen."},
    }
    yield "Readiness", _object({"ready": flag, "use_cases": {"type": "object", "additionalProperties": _object(readiness)}})
    field = {**text, "description": "As it was sent, or else of the clean row that it becomes; `row` is a row as a whole."}
    problem = _object({"field": field, "value": {"description": "As it was sent, cut where it is long."}, "rule": text})
    yield (
        "Error",
        _object({"error": _object({"code": text, "message": text}, also={"problems": {"type": "array", "items": problem}})}),
    )


def _object(properties: Json, *, also: Json | None = None) -> Json:
    return {"type": "object", "properties": properties | (also or {}), "required": list(properties)}


def _features_name(case: UseCase) -> str:
    return f"{case.name}.given_features"


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


def _responses(schema: Json, *, body: bool = True) -> Json:
    return {"200": _json(schema, "Done."), **_errors(*(status for status in _ERRORS if body or status not in _OF_BODIES))}


def _errors(*statuses: str) -> Json:
    return {
        status: _json(_ref("Error"), _ERRORS[status]) | ({"headers": _HEADERS[status]} if status in _HEADERS else {})
        for status in statuses
    }


def _json(schema: Json, description: str) -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
