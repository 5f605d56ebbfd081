"""How many requests one source may make at a gateway, as Envoy's configuration says it.

A source is an address (of IPv6, its /64: one customer's). Each has buckets of its own, so whoever floods is
refused alone, with 429 and `retry-after`. Rules:

* Calls that need no token: a bucket for each source and method, and a much larger one for all sources.
* Health, ready and seal status: a bucket for each source, with a rate of its own, and none for all sources: a
  few addresses would use it up, and make a healthy node look dead. However many ask, etcd is asked ten times
  a second at most (services.seal.status.shared_overview).
* Calls with a token are not limited by number, but by their answers: a source that was answered 401 too often
  within ten seconds waits for the end of these (gateway/refused.lua). Sealing and revoking (`for_safety`) are
  counted by themselves.

Each Envoy counts by itself, and answers 401 are counted by each of its workers. Behind a proxy every request
comes from its address: `gateway_trusted_proxies` says how many there are, and the client is then the address
that the outermost of them saw, by `x-forwarded-for`. If it is set too high, clients can choose their address.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from strongbox.config import FromEnvironment

_TYPE = "type.googleapis.com/envoy.extensions.filters.http"
_LUA = Path(__file__).resolve().parents[2] / "gateway" / "refused.lua"
# All sources together may do so many times what one may.
_ALL = 10
# Sources that are remembered: for each method (beyond these the longest silent one begins anew), and by
# refused.lua for each worker (beyond these none is added until the window ends).
_SOURCES = 10_000
_WINDOW_S = 10


class Limits(FromEnvironment):
    """Requests a second that one source may make, and twice as many at once; `refused`: answers 401."""

    gateway_open_rate: int = Field(default=50, ge=1, le=100_000)
    gateway_status_rate: int = Field(default=100, ge=1, le=100_000)
    gateway_refused_rate: int = Field(default=100, ge=1, le=100_000)
    gateway_trusted_proxies: int = Field(default=0, ge=0, le=16)


def by_source(name: str, rate: int, *, total: bool = True) -> dict[str, Any]:
    """A route's own setting of the local rate limit: `rate` a second for each source.

    `total`: and `_ALL` times that for all sources together.
    """
    everything = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
    return {
        "envoy.filters.http.local_ratelimit": {
            "@type": f"{_TYPE}.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": name,
            # A source's bucket is asked first: a request refused there takes nothing from this one for all.
            "token_bucket": _bucket(rate * _ALL),
            # Each request is of a source, so without this the bucket for all is never asked.
            "always_consume_default_token_bucket": total,
            "rate_limits": [{"actions": [{"masked_remote_address": {"v6_prefix_mask_len": 64}}]}],
            # An entry without a value stands for each value there is.
            "descriptors": [{"entries": [{"key": "masked_remote_address"}], "token_bucket": _bucket(rate)}],
            "max_dynamic_descriptors": _SOURCES,
            "filter_enabled": everything,
            "filter_enforced": everything,
            "rate_limited_as_resource_exhausted": True,
        }
    }


def refused_code(limits: Limits) -> str:
    """The filter that counts answers 401, in Lua. Raises OSError."""
    limit = limits.gateway_refused_rate * _WINDOW_S
    settings = f"local LIMIT, WINDOW_S, SOURCES = {limit}, {_WINDOW_S}, {_SOURCES}\n"
    return settings + _LUA.read_text(encoding="utf-8")


def without_refused() -> dict[str, Any]:
    """A route's own setting: its answers are not counted."""
    return {"strongbox.refused": {"@type": f"{_TYPE}.lua.v3.LuaPerRoute", "disabled": True}}


def _bucket(rate: int) -> dict[str, Any]:
    return {"max_tokens": 2 * rate, "tokens_per_fill": rate, "fill_interval": "1s"}
