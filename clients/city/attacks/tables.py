"""The traffic of devices and botnets: the numbers behind generated flows, one row each.

Ranges follow published descriptions of such traffic: what smart-home devices do, Sivanathan et al. 2018 ("Classifying
IoT devices in smart environments", IEEE TMC) and Meidan et al. 2018 (N-BaIoT); what bots do, Antonakakis et al. 2017
("Understanding the Mirai botnet") and Meidan et al. 2018. The rows themselves are made up, within the bands of
`tests/support/city_figures/intrusion.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from clients.core.arrays import F32


@dataclass(frozen=True, kw_only=True)
class Talk:
    """The traffic of one cause while it is active.

    Attributes:
        rate: packets sent a second.
        spread: deviation of the rate's logarithm from one window to the next.
        size: bytes of a packet sent, on average.
        reply_size: bytes of a packet received.
        varied: deviation of packet sizes over their mean.
        replies: packets received for each one sent.
        long: packets sent in a flow.
        peers: destinations of all its flows.
        fresh: share of flows that go to a new destination instead.
        ports: destination ports.
        fresh_ports: share of flows that go to a new port instead.
        even: how evenly packets go to destinations: 0 all to one, 1 the same to each.
        syn: share of packets that open a connection; the following are shares of packets too.
        ack: bare acknowledgements.
        rst: resets.
        udp: datagrams.
        dns: name queries, all of them datagrams.
        telnet: share of flows to ports 23 and 2323.
        failed: share of flows without an answer.
        local: share of flows to the local network.
        seconds: share of the window that it lasts.
        period: seconds between packets to its most regular peer.
        jitter: coefficient of variation of that time.
    """

    rate: float
    spread: float = 0.4
    size: float
    reply_size: float
    varied: float = 0.5
    replies: float
    long: float
    peers: float = 1.0
    fresh: float = 0.0
    ports: float = 1.0
    fresh_ports: float = 0.0
    even: float = 0.5
    syn: float = 0.04
    ack: float = 0.35
    rst: float = 0.01
    udp: float = 0.0
    dns: float = 0.0
    telnet: float = 0.0
    failed: float = 0.01
    local: float = 0.0
    seconds: float = 1.0
    period: float = 60.0
    jitter: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Device:
    """A type of device.

    Attributes:
        share: of all devices.
        weak: share that a campaign can infect.
        watched: windows recorded of one, relative to the mean of all types.
        speed: how fast one can send, relative to a camera.
        idle: its traffic at all times.
        busy: its additional traffic while in use.
        people: how much its use follows people at home.
        crowd: how much it follows public events nearby.
        weather: how much it follows temperatures away from 20 degrees.
    """

    share: float
    weak: float
    watched: float
    speed: float
    idle: Talk
    busy: Talk
    people: float = 1.0
    crowd: float = 0.0
    weather: float = 0.0


DEVICES: dict[str, Device] = {
    "camera": Device(
        share=0.20, weak=0.60, watched=1.5, speed=1.0, people=0.5, crowd=0.5,
        idle=Talk(rate=0.5, size=140, reply_size=90, replies=0.9, long=30, peers=3, ports=3, udp=0.25, dns=0.02,
                  local=0.05, period=30, jitter=0.35),
        busy=Talk(rate=45, size=900, reply_size=66, replies=0.5, long=4000, peers=1, ports=1, even=0.9, syn=0.001,
                  ack=0.05, udp=0.4, seconds=0.5, period=0.03, jitter=0.9),
    ),
    "doorbell": Device(
        share=0.12, weak=0.45, watched=0.9, speed=0.8, people=0.6, crowd=1.0,
        idle=Talk(rate=0.15, size=120, reply_size=100, replies=1.0, long=12, peers=3, ports=2, udp=0.15, dns=0.03,
                  period=60, jitter=0.25),
        busy=Talk(rate=20, size=700, reply_size=80, replies=0.6, long=900, peers=2, ports=2, even=0.6, syn=0.002,
                  ack=0.08, udp=0.7, seconds=0.15, period=0.05, jitter=1.0),
    ),
    "thermostat": Device(
        share=0.15, weak=0.15, watched=0.8, speed=0.3, people=0.3, weather=1.0,
        idle=Talk(rate=0.08, size=160, reply_size=210, replies=1.1, long=9, peers=2, ports=2, udp=0.05, dns=0.04,
                  period=90, jitter=0.2),
        busy=Talk(rate=0.6, size=260, reply_size=380, replies=1.2, long=14, peers=2, ports=1, syn=0.07, seconds=0.3,
                  period=8, jitter=0.8),
    ),
    "hub": Device(
        share=0.15, weak=0.25, watched=1.2, speed=0.6, people=0.8,
        idle=Talk(rate=0.9, size=180, reply_size=190, replies=1.0, long=20, peers=6, ports=5, even=0.6, udp=0.2,
                  dns=0.05, local=0.5, period=15, jitter=0.3),
        busy=Talk(rate=3, size=240, reply_size=240, replies=1.0, long=15, peers=5, ports=4, even=0.7, udp=0.2,
                  local=0.6, seconds=0.4, period=1.5, jitter=0.9),
    ),
    "plug": Device(
        share=0.25, weak=0.35, watched=0.65, speed=0.3, people=0.9,
        idle=Talk(rate=0.04, size=110, reply_size=95, replies=1.0, long=8, peers=2, ports=2, udp=0.1, dns=0.03,
                  period=60, jitter=0.12),
        busy=Talk(rate=0.3, size=150, reply_size=130, replies=1.0, long=8, peers=1, ports=1, local=0.4, syn=0.08,
                  seconds=0.1, period=5, jitter=0.7),
    ),
    "speaker": Device(
        share=0.13, weak=0.20, watched=1.1, speed=0.7,
        idle=Talk(rate=0.4, size=150, reply_size=180, replies=1.1, long=14, peers=7, ports=4, even=0.6, udp=0.2,
                  dns=0.07, local=0.1, period=30, jitter=0.4),
        busy=Talk(rate=14, size=120, reply_size=1100, replies=2.2, long=250, peers=4, ports=2, even=0.5, syn=0.006,
                  ack=0.8, udp=0.05, seconds=0.6, period=0.07, jitter=1.1),
    ),
}  # fmt: skip

FAMILIES: dict[str, Talk] = {
    "scan": Talk(rate=230, spread=0.35, size=56, reply_size=54, varied=0.08, replies=0.04, long=1.2, peers=1,
                 fresh=0.95, ports=2, even=1.0, syn=0.97, ack=0.01, rst=0.01, telnet=0.88, failed=0.97,
                 seconds=0.95, period=0.005, jitter=0.6),
    "udp_flood": Talk(rate=300, spread=0.4, size=430, reply_size=70, varied=0.3, replies=0.01, long=400, ports=1,
                      fresh_ports=0.7, even=0.0, syn=0.0, ack=0.0, rst=0.0, udp=1.0, failed=0.98, seconds=0.5,
                      period=0.004, jitter=0.5),
    "syn_flood": Talk(rate=300, spread=0.4, size=66, reply_size=58, varied=0.08, replies=0.12, long=1.0, even=0.0,
                      syn=0.98, ack=0.0, rst=0.01, failed=0.9, seconds=0.5, period=0.004, jitter=0.5),
    "ack_flood": Talk(rate=280, spread=0.4, size=330, reply_size=54, varied=0.3, replies=0.1, long=2.0, even=0.0,
                      syn=0.0, ack=0.97, rst=0.02, failed=0.8, seconds=0.5, period=0.004, jitter=0.5),
    "beacon": Talk(rate=0.1, spread=0.2, size=74, reply_size=70, varied=0.1, replies=1.0, long=40, even=1.0,
                   syn=0.02, ack=0.5, period=20, jitter=0.15),
    "brute_force": Talk(rate=4, spread=0.5, size=76, reply_size=80, varied=0.3, replies=0.85, long=9, peers=6,
                        fresh=0.02, ports=2, even=0.8, syn=0.14, ack=0.35, rst=0.06, telnet=0.95, failed=0.3,
                        seconds=0.8, period=1.0, jitter=0.7),
    "download": Talk(rate=1.5, spread=0.7, size=70, reply_size=1150, varied=0.4, replies=1.6, long=60, peers=1,
                     even=0.5, syn=0.02, ack=0.85, telnet=0.1, seconds=0.1, period=0.5, jitter=1.0),
}  # fmt: skip
"""Traffic of infected devices, the commonest first. A download fetches the bot's program and looks like an update."""

UPDATE = Talk(rate=6, spread=0.6, size=70, reply_size=1250, varied=0.4, replies=1.7, long=150, peers=1, even=0.5,
              syn=0.01, ack=0.9, seconds=0.2, period=0.1, jitter=1.0)  # fmt: skip
"""A firmware update, which every benign device fetches now and then."""


def columns(talks: Sequence[Talk]) -> dict[str, F32]:
    """Return each attribute of several talks as an array.

    Example:
        >>> columns([FAMILIES["scan"], FAMILIES["beacon"]])["ports"].tolist()
        [2.0, 1.0]
    """
    return {field.name: np.array([getattr(talk, field.name) for talk in talks], np.float32) for field in fields(Talk)}
