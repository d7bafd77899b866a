"""The scenarios, grouped by subject, and the order in which they are played."""

from dev.chaos.scenarios import (
    clocks,
    keys,
    kills,
    logs,
    partitions,
    poison,
    pressure,
    providers,
    senders,
    servers,
    stores,
    stuck,
    webhooks,
)

SCENARIOS = (
    poison.SCENARIO,
    *providers.SCENARIOS,
    *servers.SCENARIOS,
    *senders.SCENARIOS,
    *partitions.SCENARIOS,
    *pressure.SCENARIOS,
    *logs.SCENARIOS,
    *stuck.SCENARIOS,
    *stores.SCENARIOS,
    *clocks.SCENARIOS,
    keys.SCENARIO,
    *kills.SCENARIOS,
    *webhooks.SCENARIOS,
)
