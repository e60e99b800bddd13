"""`python -m kapelle.api > docs/openapi.json`: the document of the whole API."""

import json
import sys

from kapelle.api.server import application

json.dump(application().openapi(), sys.stdout, indent=1)
sys.stdout.write("\n")
