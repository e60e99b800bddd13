"""A VEN made of `python-oa3-client`, driven line by line: run by the interpreter that has it.

Takes the URL, the client id and its secret (from the environment); reads one command a line from
its standard input and answers each with one line of JSON.
"""

import json
import os
import sys

from openadr3_client import VenClient


def main() -> None:
    url, client_id = sys.argv[1:]
    ven = VenClient(url=url, client_id=client_id, client_secret=os.environ["VEN_SECRET"])
    with ven:
        ven.register(client_id)
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(answer(ven, asked)), flush=True)


def answer(ven: VenClient, asked: dict) -> object:
    match asked["do"]:
        case "events":
            return [
                {
                    "id": event.id,
                    "targets": event.targets,
                    "intervals": [
                        {
                            "id": interval.id,
                            "payloads": [[p.type, list(p.values)] for p in interval.payloads],
                        }
                        for interval in event.intervals or ()
                    ],
                }
                for event in ven.poll_events("kapelle")
            ]
        case "resources":
            return ven.api.get_resources().json()
        case "report":
            response = ven.api.create_report(asked["report"])
            return response.status_code
        case "subscribe":
            response = ven.api.create_subscription(asked["subscription"])
            return response.status_code
        case other:
            return f"unknown: {other}"


if __name__ == "__main__":
    main()
