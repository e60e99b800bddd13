"""Copies the official document with examples and mended defects, by the interpreter that has YAML.

Takes where it is, where to, the address its token endpoint shall name, and ids to try in paths:
`programID=kapelle`. Two schemas contradict themselves in 3.1.0: `ven` and `resource` demand an
`objectType` of the metadata (`VEN`) and of the request (`BL_VEN_REQUEST`) at once; the latter is
left out, as in what the OpenADR Alliance's reference VTN answers (`create_ven`).
"""

import copy
import sys
from datetime import UTC, datetime
from pathlib import Path

import yaml


def main() -> None:
    source, target, base, *ids = sys.argv[1:]
    document = yaml.safe_load(Path(source).read_text())
    schemas = document["components"]["schemas"]
    for name, request in (("ven", "BlVenRequest"), ("resource", "BlResourceRequest")):
        mended = copy.deepcopy(schemas[request])
        del mended["properties"]["objectType"]
        mended["required"].remove("objectType")
        schemas[name]["allOf"][1] = mended
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"createdDateTime": now, "modificationDateTime": now}
    program = {"id": "program-1", "programName": "balancing", "objectType": "PROGRAM"} | metadata
    interval = {"id": 7, "payloads": [{"type": "DISPATCH_SETPOINT_RELATIVE", "values": [2.0]}]}
    event = {
        "id": "event-1",
        "objectType": "EVENT",
        "programID": "program-1",
        "intervalPeriod": {"start": now, "duration": "PT15M"},
        "intervals": [interval],
    } | metadata
    examples = {
        "/programs": [program],
        "/events": [event],
        "/reports": [],
        "/auth/server": {"tokenURL": f"{base}/auth/token"},
    }
    for path, example in examples.items():
        answer = document["paths"][path]["get"]["responses"]["200"]
        answer["content"]["application/json"]["example"] = example
    known = dict(one.split("=", 1) for one in ids)
    for path in document["paths"].values():
        for parameter in path.get("parameters", ()):
            if parameter["name"] in known:
                parameter["example"] = known[parameter["name"]]
    document["servers"] = [{"url": base}]
    Path(target).write_text(yaml.safe_dump(document, sort_keys=False))


if __name__ == "__main__":
    main()
