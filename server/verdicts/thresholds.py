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
AHEAD = 3.0
"""How a loss goes on is foreseen to so many times its rounds: the labels of real runs are from as many."""
REMAINING = 0.03
"""A loss still improves where more than this share of its gain is foreseen to fall. Calibrated."""
SLOWLY = 0.01
"""Below that, from this share on, it improves slowly; less is not worth a word."""
LIKELY = 0.9
"""Probability from which such a fall is foreseen. Calibrated."""
SKIPPED = 1.0 / 6.0
"""Share of the rounds that is left out at the start, where a fall has another course. Calibrated."""
STRETCHES, PER_STRETCH = 16, 3
"""Means of so many stretches, of so many values or more, stand for the rounds after them. Calibrated."""
MISFIT = 0.01
"""What the shapes miss of a real fall without noise, as a share of its height: none of them is true. Calibrated."""
OUTLYING = 2.5
"""Deviations from the running median at which values are cut before such means."""
E_FOLDS = tuple(0.5 * 1.19**step for step in range(21))
"""Geometric falls that are compared: by a factor of e so many times over the rounds that are looked at."""
LASTING = 1.4
"""Log of the odds of a power law or a straight line against a geometric fall, before the record is seen. Calibrated."""
POWERS = (0.5, 1.0, 2.0)
"""Exponents of the power laws that are compared, beside the logarithm."""
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
