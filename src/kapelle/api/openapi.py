"""Completes the OpenAPI document: the raw telemetry route, and problems as the form of errors."""

from typing import Any

from fastapi import FastAPI

_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "format": "uri", "description": "Stable name of the kind."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_NUMBERS = (
    "power_w", "soc", "export_wh", "import_wh", "max_w", "min_w", "voltage_v", "frequency_hz",
    "setpoint_w",
)  # fmt: skip
_READING = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "device": {"type": "string"},
        "at": {"type": "string", "format": "date-time"},
        "at_ns": {"type": "integer", "format": "int64"},
        "boot": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
        "seq": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
        **{name: {"type": "number"} for name in _NUMBERS},
        "mode": {"type": "string", "enum": ["own", "command", "local", "fault"]},
    },
}
_TAKEN = {
    "type": "object",
    "required": ["accepted", "quarantined"],
    "properties": {
        "accepted": {"type": "integer"},
        "quarantined": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["row", "device", "code", "detail"],
                "properties": {
                    "row": {"type": "integer", "description": "Counted from 0."},
                    "device": {"type": ["string", "null"]},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
        "quarantined_total": {"type": "integer"},
    },
}


def complete(app: FastAPI) -> None:
    """Let the application serve the whole document."""
    generate = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            document["paths"]["/v1/telemetry"] = {"post": _telemetry()}
            schemas = document["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas |= {"Problem": _PROBLEM, "Reading": _READING, "Taken": _TAKEN}
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    operation["responses"]["default"] = _problem("RFC 9457 problem details.")
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]  # the way FastAPI documents for this


def _problem(description: str) -> dict[str, Any]:
    return {
        "description": description,
        "content": {
            "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
        },
    }


def _telemetry() -> dict[str, Any]:
    reading = {"$ref": "#/components/schemas/Reading"}
    rows = {"type": "array", "items": reading}
    wrapped = {
        "type": "object",
        "required": ["readings"],
        "additionalProperties": False,
        "properties": {"readings": rows},
    }
    return {
        "tags": ["telemetry"],
        "summary": "Send Readings",
        "description": "Answers 200 once every usable row is durable. Unusable rows are kept in "
        "quarantine and listed; the others are taken. Sending again is harmless.",
        "operationId": "send_readings",
        "security": [{"HTTPBearer": []}, {"HTTPBasic": []}],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"oneOf": [rows, wrapped]}},
                "application/x-ndjson": {"schema": {"type": "string"}},
                "application/vnd.apache.arrow.stream": {
                    "schema": {"type": "string", "format": "binary"}
                },
            },
        },
        "responses": {
            "200": {
                "description": "Durable.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Taken"}}},
            }
        },
    }
