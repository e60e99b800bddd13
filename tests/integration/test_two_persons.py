"""S-23 on a running plant: what is large takes two, each with a token of his own."""

from pathlib import Path

import pytest
from tests.integration.conftest import SHORT_LEASES, Site

from kapelle.sim.devices import FleetPlan

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]


class Persons:
    """Speaks to a plant in the name of one person or another."""

    def __init__(self, site: Site) -> None:
        self.site, self.tokens = site, dict[str, str]()

    def add(self, name: str) -> None:
        self.tokens[name] = self.site.json("person", "add", name)["token"]

    def refused(self, *arguments: str) -> str:
        done = self.site.ask(*arguments)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def speak(self, name: str) -> None:
        """Go on as this person; as the plant's own token where it is nobody."""
        self.site.environment.pop("KAPELLE_TOKEN", None)
        if name:
            self.site.environment["KAPELLE_TOKEN"] = self.tokens[name]


def test_one_selects_and_another_operates(tmp_path: Path) -> None:
    site = Site(
        tmp_path,
        plant={"data_dir": "data", "partitions": 1},
        safety={"operate_above_w": 1000},
        **SHORT_LEASES,
    )
    site.enrol(FleetPlan(devices=5))
    persons = Persons(site)
    persons.add("alice")
    # Its devices are not there: what starts later is judged when it starts.
    large = ("--kw", "5", "--for", "10m", "--at", "+30m")
    with site.plant(5):
        # Whoever comes while the plant runs is known within a second.
        persons.add("bob")
        persons.speak("bob")
        site.wait(lambda: site.ask("status").returncode == 0)

        persons.speak("alice")
        assert "two persons" in persons.refused("order", "create", *large)
        selection = site.json("order", "select", *large)
        assert selection["selected_by"] == "alice"
        number = str(selection["selection_no"])
        persons.speak("bob")
        assert site.json("order", "selected", number)["impact"] == selection["impact"]
        made = site.json("order", "operate", number)
        assert (made["issued_by"], made["operated_by"]) == ("alice", "bob")
        assert "select again" in persons.refused("order", "operate", number)
        site.json("order", "cancel", str(made["order_no"]))
        number = str(site.json("order", "select", *large)["selection_no"])
        assert "second person" in persons.refused("order", "operate", number)

        persons.speak("")
        shown = site.json("person", "ls")["persons"]
        assert [person["name"] for person in shown] == ["alice", "bob"]
        assert not any(token in str(shown) for token in persons.tokens.values())
        site.json("person", "revoke", "bob")
        persons.speak("bob")
        site.wait(lambda: site.ask("status").returncode != 0)
