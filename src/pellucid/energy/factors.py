"""Grams of CO2e for a kilowatt-hour: dated factors of some regions, or one that the user names."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.errors import ConfigError

TABLE = Path(__file__).with_name("factors.json")
WORLD = "world"


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """Location-based intensity of electricity. Example: find_factor("FR").grams_per_kwh == 56"""

    region: str
    grams_per_kwh: float
    year: int | None
    """That it holds for; None: the user did not say."""
    source: str

    def to_dict(self) -> dict[str, Any]:
        """For energy/factors.json of a dossier."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def find_factor(region: str) -> Factor:
    """The factor of a region: `world` or a country code. Raises ConfigError."""
    table = json.loads(TABLE.read_text())
    regions = {name.casefold(): name for name in table["regions"]}
    name = regions.get(region.casefold())
    if name is None:
        raise ConfigError(
            f"no factor for region {region!r}: known are {', '.join(table['regions'])}; for "
            "another one give its grams of CO2e per kWh with year and source"
        )
    return Factor(
        region=name,
        grams_per_kwh=table["regions"][name],
        year=table["year"],
        source=f"{table['source']}; {table['url']}, retrieved {table['retrieved']}",
    )


def own_factor(
    grams_per_kwh: float, *, source: str, region: str = "own", year: int | None = None
) -> Factor:
    """A factor of the user's, such as that of a supplier. Raises ConfigError without a source."""
    if not (math.isfinite(grams_per_kwh) and 0 <= grams_per_kwh <= 2000):
        raise ConfigError(f"{grams_per_kwh} g CO2e per kWh is no factor: give 0 … 2000")
    if not source.strip():
        raise ConfigError("a factor without a source cannot be checked: say where it is from")
    return Factor(region=region, grams_per_kwh=grams_per_kwh, year=year, source=source)
