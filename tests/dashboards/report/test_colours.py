"""The colours of series: all differ, and lines of one style differ for colour-blind readers too, on both grounds."""

import itertools
import re

import numpy as np
import pytest

from dashboards.report.pages import asset

SERIES, SOLID = 12, 6
"""The number of colours, and of those drawn solid; the others are dashed (`base.js`)."""
SEEN = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.011820, 0.042940, 0.968881]]),
}  # fmt: skip
"""Linear RGB as seen: Machado, Oliveira and Fernandes 2009, severity 1."""
LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip
"""Ottosson's OKLab, in which a distance of 0.02 is about the least that is seen side by side."""
LEAST_DISTANCE = 0.08
LEAST_CONTRAST = 3.0
"""WCAG 2's ratio for graphics."""


def linear(colour: str) -> np.ndarray:
    part = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def distance(one: str, other: str, seen: str) -> float:
    a, b = (LAB @ np.cbrt(LMS @ np.clip(SEEN[seen] @ linear(colour), 0, 1)) for colour in (one, other))
    return float(np.linalg.norm(a - b))


def contrast(one: str, other: str) -> float:
    high, low = sorted((float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def themes() -> list[dict[str, str]]:
    light, dark = re.findall(r":root(?:\[data-theme=\"dark\"\])? \{(.*?)\}", asset("report.css"), re.DOTALL)[:2]
    return [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", text)) for text in (light, dark)]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_series_differ_in_colour_and_stand_out(theme: int) -> None:
    names = themes()[theme]
    colours = [names[f"s{index}"] for index in range(SERIES)]
    assert f"s{SERIES}" not in names
    assert f"const COLOURS = {SERIES};" in asset("base.js")
    assert min(distance(a, b, "normal") for a, b in itertools.combinations(colours, 2)) > LEAST_DISTANCE
    for group in (colours[:SOLID], colours[SOLID:]):
        for seen in ("protanopia", "deuteranopia"):
            assert min(distance(a, b, seen) for a, b in itertools.combinations(group, 2)) > LEAST_DISTANCE, seen
    assert min(contrast(colour, names["card"]) for colour in colours) >= LEAST_CONTRAST


def test_similar_colours_are_found() -> None:
    assert distance("#2b62d9", "#2b62d9", "normal") == 0.0
    assert distance("#bb3c86", "#6b7280", "deuteranopia") < LEAST_DISTANCE < distance("#bb3c86", "#6b7280", "normal")
    assert contrast("#ffffff", "#000000") == pytest.approx(21.0)
