"""From causes of traffic to the features of a window: layers that add up, as packets on a wire do.

A layer is one cause (idle chatter, use, an attack) with a number of packets, flows, peers and shares. Layers of a
window add: counts and bytes are sums, shares are means weighted by packets or flows, and the entropy of destinations,
whose sets are disjoint, is H = sum_l w_l (H_l - log2 w_l) with w_l the layer's share of packets.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from clients.channels import Channel

F64 = npt.NDArray[np.float64]
Layer = Mapping[str, F64]

WINDOW_SECONDS = 600.0
MTU = 1500.0
_BY_PACKETS = ("syn", "ack", "rst", "udp", "dns")
_BY_FLOWS = ("telnet", "failed", "local")
NOISES = 6
"""Standard normal numbers that a layer takes."""
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
"""What is told of a window. Counts and bytes are logarithms: they span seven orders of magnitude."""


def layer(talk: Layer, amount: F64, normals: F64) -> dict[str, F64]:
    """Return what one cause sends in a window.

    Args:
        talk: columns of `clients.city.traffic_tables.Talk`, (M,) each.
        amount: factor on the rate; 0 where the cause is absent.
        normals: standard normal numbers, (NOISES, M).
    """
    seconds = np.clip(talk["seconds"] * np.exp(0.25 * normals[0]), 0.0, 1.0) * WINDOW_SECONDS
    expected = amount * talk["rate"] * np.exp(talk["spread"] * normals[1]) * seconds
    up = np.maximum(np.rint(expected + np.sqrt(expected) * normals[2]), 0.0)
    there = up > 0.0
    down = np.where(there, np.rint(up * talk["replies"] * np.exp(0.1 * normals[3])), 0.0)
    size = np.clip(talk["size"] * np.exp(0.08 * normals[4]), 40.0, MTU)
    reply = np.clip(talk["reply_size"] * np.exp(0.08 * normals[4]), 40.0, MTU)
    flows = np.where(there, np.maximum(np.rint(up / talk["long"]), 1.0), 0.0)
    peers = np.minimum(flows, np.rint(talk["peers"] * np.exp(0.15 * normals[5]) + talk["fresh"] * flows))
    peers = np.where(there, np.maximum(peers, 1.0), 0.0)
    ports = np.minimum(flows, np.rint(talk["ports"] + talk["fresh_ports"] * flows))
    shares = {
        name: np.where(
            talk[name] < NEARLY_ALL, np.minimum(talk[name] * np.exp(0.25 * normals[i % NOISES]), 1.0), talk[name]
        )
        for i, name in enumerate((*_BY_PACKETS, *_BY_FLOWS))
    }
    return {
        "seconds": np.where(there, seconds, 0.0),
        "up": up,
        "down": down,
        "up_bytes": up * size,
        "down_bytes": down * reply,
        "up_squares": up * size**2 * (1.0 + talk["varied"] ** 2),
        "flows": flows,
        "peers": peers,
        "ports": np.where(there, np.maximum(ports, 1.0), 0.0),
        "even": talk["even"],
        "period": np.where(there, talk["period"] * np.exp(0.1 * normals[3]), WINDOW_SECONDS),
        "jitter": np.where(there, np.clip(talk["jitter"] * np.exp(0.25 * normals[2]), 0.0, 3.0), 9.0),
        **shares,
    }


def features(layers: tuple[Layer, ...], hour: F64) -> F64:
    """Return the features of windows from their layers.

    Args:
        layers: what adds up, (M,) a column.
        hour: of the day, (M,).

    Returns:
        (M, C) in the units of `CHANNELS`, in their order. A window without packets is 0 everywhere but in its `gap`.
    """
    total = {
        name: _sum(layers, name) for name in ("up", "down", "up_bytes", "down_bytes", "up_squares", "flows", "peers")
    }
    up, flows = np.maximum(total["up"], 1.0), np.maximum(total["flows"], 1.0)
    mean = total["up_bytes"] / up
    deviation = np.sqrt(np.maximum(total["up_squares"] / up - mean**2, 0.0))
    entropy, by_packets = np.zeros_like(up), {name: np.zeros_like(up) for name in _BY_PACKETS}
    by_flows = {name: np.zeros_like(up) for name in _BY_FLOWS}
    period, jitter = np.full_like(up, WINDOW_SECONDS), np.full_like(up, 9.0)
    duration = np.zeros_like(up)
    for one in layers:
        weight = one["up"] / up
        own = one["even"] * np.log2(np.maximum(one["peers"], 1.0))
        entropy += weight * (own - np.log2(np.maximum(weight, 1e-12)))
        for name, mixed in by_packets.items():
            mixed += weight * one[name]
        for name, mixed in by_flows.items():
            mixed += one["flows"] / flows * one[name]
        steadier = one["jitter"] < jitter
        period, jitter = np.where(steadier, one["period"], period), np.where(steadier, one["jitter"], jitter)
        duration = np.maximum(duration, one["seconds"])
    ports = np.maximum.reduce([one["ports"] for one in layers])
    angle = hour * (2.0 * np.pi / 24.0)
    return np.stack(
        (
            duration,
            *(np.log10(1.0 + total[name]) for name in ("up", "down", "up_bytes", "down_bytes")),
            mean,
            total["down_bytes"] / np.maximum(total["down"], 1.0),
            np.minimum(deviation, MTU),
            np.log10(period),
            np.where(jitter < 9.0, jitter, 0.0),
            *(np.log10(1.0 + values) for values in (total["flows"], total["peers"], ports)),
            np.maximum(entropy, 0.0),
            *(np.clip(by_packets[name], 0.0, 1.0) for name in _BY_PACKETS),
            *(np.clip(by_flows[name], 0.0, 1.0) for name in _BY_FLOWS),
            np.sin(angle),
            np.cos(angle),
        ),
        axis=1,
    )


def _sum(layers: tuple[Layer, ...], name: str) -> F64:
    total = layers[0][name]
    for one in layers[1:]:
        total = total + one[name]
    return total
