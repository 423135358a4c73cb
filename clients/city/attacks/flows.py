"""From causes of traffic to the features of a window: layers that add up, as packets on a wire do.

A layer is one cause (idle chatter, use, an attack) with a number of packets, flows, peers and shares. Layers of a
window add: counts and bytes are sums, shares are means weighted by packets or flows, and the entropy of destinations,
whose sets are disjoint, is H = sum_l w_l (H_l - log2 w_l) with w_l the layer's share of packets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clients.core.arrays import F32, F64, I64
from clients.core.channels import Channel

Layer = Mapping[str, F32]
Rows = I64 | slice

WINDOW_SECONDS = 600.0
MTU = 1500.0
_BY_PACKETS = ("syn", "ack", "rst", "udp", "dns")
_BY_FLOWS = ("telnet", "failed", "local")
NOISES = 6
"""Standard normal numbers that a layer takes."""
_NONE = np.float32(9.0)  # jitter of a cause that sends nothing, larger than any other
NEARLY_ALL = 0.85
"""Shares from here on do not vary from window to window: a SYN flood is SYNs."""


def _channel(name: str, mean: float, deviation: float, high: float, unit: str = "", *, low: float = 0.0) -> Channel:
    return Channel(name=name, unit=unit, mean=mean, deviation=deviation, low=low, high=high)


CHANNELS: tuple[Channel, ...] = (
    _channel("duration", 550.0, 70.0, WINDOW_SECONDS, "s"),
    _channel("packets_up", 2.6, 1.1, 8.0, "log10(1+packets)"),
    _channel("packets_down", 2.5, 1.0, 8.0, "log10(1+packets)"),
    _channel("bytes_up", 4.8, 1.3, 11.0, "log10(1+B)"),
    _channel("bytes_down", 4.8, 1.2, 11.0, "log10(1+B)"),
    _channel("packet_up", 220.0, 190.0, MTU, "B"),
    _channel("packet_down", 200.0, 220.0, MTU, "B"),
    _channel("packet_deviation", 130.0, 110.0, MTU, "B"),
    _channel("gap", 1.5, 0.4, 2.8, "log10 s", low=-5.0),
    _channel("gap_variation", 0.3, 0.15, 3.0),
    _channel("flows", 1.3, 0.9, 6.0, "log10(1+flows)"),
    _channel("destinations", 0.9, 0.8, 6.0, "log10(1+addresses)"),
    _channel("ports", 0.6, 0.3, 4.9, "log10(1+ports)"),
    _channel("destination_entropy", 1.6, 3.0, 20.0, "bit"),
    _channel("syn_share", 0.08, 0.2, 1.0),
    _channel("ack_share", 0.33, 0.15, 1.0),
    _channel("rst_share", 0.01, 0.01, 1.0),
    _channel("udp_share", 0.18, 0.16, 1.0),
    _channel("dns_share", 0.03, 0.02, 1.0),
    _channel("telnet_share", 0.04, 0.18, 1.0),
    _channel("failed_share", 0.07, 0.24, 1.0),
    _channel("local_share", 0.12, 0.19, 1.0),
    Channel(name="hour_sin", deviation=0.7, low=-1.0, high=1.0, measured=False),
    Channel(name="hour_cos", deviation=0.7, low=-1.0, high=1.0, measured=False),
)
"""The features of a window. Counts and bytes are logarithms: they span seven orders of magnitude."""


@dataclass(frozen=True)
class Cause:
    """The traffic of one cause in windows, float32 (m,) each.

    Attributes:
        rows: indices of the windows, each once, (m,), or all of them.
        values: by name.
    """

    rows: Rows
    values: dict[str, F32]


def cause(talk: Layer, rows: Rows, amount: F32, normals: F32) -> Cause:
    """Return the traffic of one cause in the windows in which it is active.

    Args:
        talk: columns of `clients.city.attacks.tables.Talk`, (m,) each.
        rows: indices of the windows, m of them.
        amount: factor on the rate, (m,).
        normals: standard normal numbers, (NOISES, m).
    """
    slight, some = np.exp(np.float32(0.08) * normals[4]), np.exp(np.float32(0.1) * normals[3])
    seconds = talk["seconds"] * np.exp(np.float32(0.25) * normals[0])
    np.clip(seconds, np.float32(0.0), np.float32(1.0), out=seconds)
    seconds *= np.float32(WINDOW_SECONDS)
    expected = np.exp(talk["spread"] * normals[1])
    expected *= talk["rate"]
    expected *= amount
    expected *= seconds
    up = np.sqrt(expected) * normals[2]
    up += expected
    np.rint(np.maximum(up, np.float32(0.0), out=up), out=up)
    there = (up > 0.0).astype(np.float32)
    least = np.minimum(there, up)
    flows = np.maximum(np.rint(up / talk["long"]), least)
    peers = talk["peers"] * np.exp(np.float32(0.15) * normals[5]) + talk["fresh"] * flows
    peers = np.maximum(np.minimum(np.rint(peers, out=peers), flows), least)
    ports = np.maximum(np.minimum(np.rint(talk["ports"] + talk["fresh_ports"] * flows), flows), least)
    down = np.rint(up * talk["replies"] * some)
    size = np.clip(talk["size"] * slight, np.float32(40.0), np.float32(MTU))
    reply = np.clip(talk["reply_size"] * slight, np.float32(40.0), np.float32(MTU))
    jitter = talk["jitter"] * np.exp(np.float32(0.25) * normals[2])
    np.minimum(jitter, np.float32(3.0), out=jitter)
    shares = {}
    for i, name in enumerate((*_BY_PACKETS, *_BY_FLOWS)):
        loose = (talk[name] < NEARLY_ALL) * np.float32(0.25)
        loose *= normals[i % NOISES]
        shares[name] = np.minimum(talk[name] * np.exp(loose, out=loose), np.float32(1.0))
    return Cause(
        rows,
        {
            "seconds": seconds * there,
            "up": up,
            "down": down,
            "up_bytes": up * size,
            "down_bytes": down * reply,
            "size": size,
            "varied": talk["varied"],
            "flows": flows,
            "peers": peers,
            "ports": ports,
            "entropy": talk["even"] * np.log2(np.maximum(peers, np.float32(1.0))),
            "period": talk["period"] * some,
            "jitter": np.where(up > 0.0, jitter, _NONE),
            **shares,
        },
    )


def features(causes: tuple[Cause, ...], hour: F64) -> F32:
    """Return the features of windows from their causes.

    Args:
        causes: the traffic that adds up; the first cause is in all windows.
        hour: of the day, (M,).

    Returns:
        float32 (M, C) in the units of `CHANNELS`, in their order. A window without packets is 0 everywhere except in
        its `gap`.
    """
    first = causes[0].values
    total = {name: first[name].copy() for name in ("up", "down", "up_bytes", "down_bytes", "flows", "peers")}
    duration, ports = first["seconds"].copy(), first["ports"].copy()
    jitter = first["jitter"].copy()
    period = np.where(jitter < _NONE, first["period"], np.float32(WINDOW_SECONDS))
    for one in causes[1:]:
        for name, values in total.items():
            values[one.rows] += one.values[name]
        for values, name in ((duration, "seconds"), (ports, "ports")):
            values[one.rows] = np.maximum(values[one.rows], one.values[name])
        before = jitter[one.rows]
        steadier = one.values["jitter"] < before
        period[one.rows] = np.where(steadier, one.values["period"], period[one.rows])
        jitter[one.rows] = np.where(steadier, one.values["jitter"], before)
    mean = _over(total["up_bytes"], total["up"])
    mixed: dict[str, F32] = {}
    for one in causes:
        v, rows = one.values, one.rows
        by_packets, by_flows = _over(v["up"], total["up"][rows]), _over(v["flows"], total["flows"][rows])
        own = v["entropy"] - np.log2(np.maximum(by_packets, np.float32(1e-12)))
        apart = (v["size"] * v["varied"]) ** 2 + (v["size"] - mean[rows]) ** 2
        shares = {"entropy": by_packets * own, "variance": by_packets * apart}
        shares |= {name: by_packets * v[name] for name in _BY_PACKETS}
        shares |= {name: by_flows * v[name] for name in _BY_FLOWS}
        if not mixed:
            mixed = shares
        else:
            for name, values in shares.items():
                mixed[name][rows] += values
    angle = (hour * (2.0 * np.pi / 24.0)).astype(np.float32)
    columns: tuple[F32, ...] = (
        duration,
        *(_digits(total[name]) for name in ("up", "down", "up_bytes", "down_bytes")),
        mean,
        _over(total["down_bytes"], total["down"]),
        np.minimum(np.sqrt(mixed["variance"]), np.float32(MTU)),
        np.log10(period),
        np.where(jitter < _NONE, jitter, np.float32(0.0)),
        *(_digits(values) for values in (total["flows"], total["peers"], ports)),
        np.maximum(mixed["entropy"], np.float32(0.0)),
        *(np.minimum(mixed[name], np.float32(1.0)) for name in (*_BY_PACKETS, *_BY_FLOWS)),
        np.sin(angle),
        np.cos(angle),
    )
    out = np.empty((len(hour), len(columns)), np.float32)
    for j, column in enumerate(columns):
        out[:, j] = column
    return out


def _over(part: F32, whole: F32) -> F32:
    """Return part / whole, where the whole is at least 1."""
    result: F32 = np.divide(part, np.maximum(whole, np.float32(1.0)))
    return result


def _digits(values: F32) -> F32:
    """Return log10(1 + values)."""
    result: F32 = np.log(values + np.float32(1.0))
    result *= np.float32(1.0 / np.log(10.0))
    return result
