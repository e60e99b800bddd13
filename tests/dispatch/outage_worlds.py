"""Devices that report each in its own rhythm, summed up once a second for whoever names outages."""

from dataclasses import replace

import numpy as np

from kapelle.dispatch.outages import Group, step_groups
from kapelle.dispatch.settings import DispatchSettings
from kapelle.fleet.plant import PlantView, total
from kapelle.fleet.silence import AGES, quarter_octaves
from kapelle.model.ids import NS_PER_S
from kapelle.model.plant import Notice
from kapelle.model.summaries import Silence

SETTINGS = DispatchSettings()
BEGIN_NS = 1_000 * NS_PER_S
NOTHING = total(PlantView(1))


class Air:
    """Reports of a fleet, and what dispatch makes of them.

    Args:
        vendors: Devices of each vendor, `v0` and so on.
        cadence_s: How often devices of each report. [s]
        seed: Of phases and losses.
        providers: Devices come through so many providers, `p0` and so on, at random.
        loss: Part of the reports that are lost. 0-1
    """

    def __init__(
        self,
        vendors: list[int],
        cadence_s: list[float],
        seed: int = 1,
        providers: int = 0,
        loss: float = 0.0,
    ) -> None:
        self.draw = np.random.default_rng(seed)
        self.vendor = np.repeat(np.arange(len(vendors)), vendors)
        self.provider = self.draw.integers(0, max(providers, 1), len(self.vendor))
        self.has_providers, self.loss = providers > 0, loss
        self.cadence_s = np.array(cadence_s)[self.vendor]
        self.heard_s = -self.draw.uniform(0, 1, len(self.vendor)) * self.cadence_s
        self.next_s = self.heard_s + self.cadence_s
        self.silent = np.zeros(len(self.vendor), bool)
        self.groups: dict[str, Group] = {}
        self.now_s = 0

    def run(self, for_s: int) -> list[Notice]:
        """Let time pass; return what was said."""
        said: list[Notice] = []
        for _ in range(for_s):
            self.now_s += 1
            while (due := np.flatnonzero(self.next_s <= self.now_s)).size:
                came = due[~self.silent[due] & (self.draw.random(due.size) >= self.loss)]
                self.heard_s[came] = self.next_s[came]
                self.next_s[due] += self.cadence_s[due]
            said += step_groups(self.groups, self.told(), self.now_ns, SETTINGS)
        return said

    def back(self, who: np.ndarray, within_s: float) -> None:
        """Let devices return, each at a moment of its own."""
        self.silent[who] = False
        self.next_s[who] = self.now_s + self.draw.uniform(0, within_s, np.count_nonzero(who))

    @property
    def now_ns(self) -> int:
        return BEGIN_NS + self.now_s * NS_PER_S

    def told(self):
        age_s = self.now_s - self.heard_s
        rhythms = (age_s - 1.0) / self.cadence_s
        levels = {"vendor": self.vendor}
        if self.has_providers:
            levels["provider"] = self.provider
        heard, silences = {"vendor": {}, "provider": {}}, {}
        for level, codes in levels.items():
            for code in range(codes.max() + 1):
                mine = codes == code
                known = mine & (rhythms <= 10.0)
                ages = quarter_octaves(age_s[known].astype(np.float32))
                name = f"{level[0]}{code}"
                heard[level][name] = (mine.sum(), np.count_nonzero(mine & (rhythms <= 2.5)))
                silences[f"{level}/{name}"] = Silence(
                    late=np.count_nonzero(mine & (rhythms > 1.5) & (rhythms <= 2.5)),
                    due=np.count_nonzero(known & (age_s > self.cadence_s + 1.0)),
                    ages=np.bincount(ages, minlength=AGES).tolist(),
                )
        return replace(
            NOTHING, vendors=heard["vendor"], providers=heard["provider"], silences=silences
        )
