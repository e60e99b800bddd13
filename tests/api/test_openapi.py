"""The checked-in document is what the server serves, and every route is in it."""

import json
from pathlib import Path

from fastapi.routing import APIRoute

from kapelle.api.routes import guarded, open_to_all
from kapelle.api.server import application

FILE = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"


def test_the_file_is_current() -> None:
    written = json.loads(FILE.read_text())
    assert written == application().openapi(), (
        "docs/openapi.json is old; run: python -m kapelle.api > docs/openapi.json"
    )
    assert written["openapi"].startswith("3.1")


def test_every_route_is_documented() -> None:
    paths = json.loads(FILE.read_text())["paths"]
    for route in [*guarded.routes, *open_to_all.routes]:
        assert isinstance(route, APIRoute)
        for method in route.methods:
            assert method.lower() in paths[route.path_format], (method, route.path_format)
            assert "default" in paths[route.path_format][method.lower()]["responses"]
    assert "post" in paths["/v1/telemetry"]


def test_what_is_not_open_says_so() -> None:
    for path, operations in json.loads(FILE.read_text())["paths"].items():
        for operation in operations.values():
            assert bool(operation.get("security")) == (path not in ("/healthz", "/readyz")), path
