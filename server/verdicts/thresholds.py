"""Every threshold of the conditions and signs, with its reason.

Where a reason says *calibrated*, the value separates the labelled curves of the calibration half of
tests/benchmarks/verdicts.py; docs/verdicts.md has the error rates on the other half.
"""

from __future__ import annotations

FEWEST = 8
"""Measured rounds below which nothing is concluded: Mann and Kendall's test and the rate need 8 values."""
TAIL = 3
"""The newest third of a record decides whether a loss moves, compared with the third before it."""
BLOCKS = 8
"""Medians of so many blocks stand for a stretch: they are robust against outliers and less correlated than values."""
CLEAR = 3.0
"""A difference is clear from this many of its standard errors on: 0.3% of normal ones are larger. Calibrated."""
SMALLEST = 0.005
"""The smallest share of what a loss gained that matters, where the scenario has no plateau.min_delta."""
WORSE = 0.002
"""A loss that got worse after its best by less than this share of its gain stayed where it was, even without noise."""
REMAINING = 0.015
"""A loss at rest has less than this share of its gain still to fall. Calibrated."""
STRAIGHT = 6.0
"""A straight fall is expected to go on for so many thirds of the record, twice its length; no limit can be seen."""
FAR = 10.0
"""A target that needs more than so many times the rounds played is not moved towards: the fall is too slow."""
NOISY = 0.025
"""At the noise floor the scatter is at least this share of what was gained. Calibrated."""
LOST = 0.1
"""A drift counts as forgetting if it costs this share of what was gained; less is an ordinary disturbance."""
OUTRIGHT = 4.0
"""A rise of so many standard deviations is one without a trend as well: the least of 200 values is 3 below their mean.
Calibrated."""
ROUNDING = 1e-6
"""Relative rounding of a loss in float32."""
GROWN = 0.5
"""A loss that rises at the end diverges if it lost this share of what it had gained, or is above its start."""
LEARNT = 0.25
"""A score that gained this share of what it could gain shows that something was learnt, whatever the loss does."""
FAST_GROWTH = 0.1
"""A loss that rose above its start by this share of its start left it; below it stands still. Calibrated."""

MOST = 4096
"""Newest values that cycles are sought in."""
SHORTEST_WINDOW = 16
"""Values that cycles need."""
FEWEST_CYCLES = 4
"""Cycles that must be seen: curvature of a falling loss, and noise that adds up, look like one to three. Calibrated."""
SIGNIFICANT = 1e-3
"""Probability with which noise alone has as high a peak at any frequency."""
CYCLE_SHARE = 0.5
"""Share of the scatter that a cycle and its harmonics explain. Calibrated: correlated noise reaches 0.4."""
SUSTAINED = 0.6
"""Amplitude in the newer half of the window over that in the older half: a damped oscillation converges."""
AMPLITUDE = 0.02
"""Amplitude of a cycle that matters, as a share of what was gained. Calibrated: with 0.01 noise of real runs cycles."""
EVEN_STEPS = 1e-3
"""Relative scatter of the server's steps below which they keep their length, as on a circle."""

SETTLED = 1e-3
"""Relative change of the parameters in a round below which they settle: a hundred such rounds move them by a tenth."""
STILL = 1e-5
"""Relative change below which parameters are at rest even after fewer than `FEWEST` rounds."""
SHORT_STEPS = 0.01
"""Steps below this share of the longest one have settled, however large the parameters are."""
AGREE = 0.985
"""Share of unchanged predictions from which outputs agree: the built-in scenarios' own."""
NEWEST = 5
"""Newest measurements whose median a sign compares."""

VANISHED = 1e-3
"""Norm of the first layer's update over that of the last below which gradients vanish; 0.01 to 10 is usual."""
ESCAPES = 2.0
"""Growth of the gradient norm, while the loss stands still, of a path that leaves a saddle."""
SMALL_STEPS = 1e-4
"""Relative change of the parameters in a round below which a model that did not learn took too small steps."""
