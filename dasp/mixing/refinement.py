"""Refines controls against the waveform of a reference, by least squares: Gauss-Newton with damping.

A spectral distance leads controls near from afar, and is flat where two of them trade against each other.  Where stems
and reference align to the sample, the difference of the two waveforms says more: with the same console it goes to
nothing.  It is linear in most of what a mix does, so that a few steps with all derivatives settle what a hundred along
a gradient do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dasp.mixing.console import DifferentiableMixingConsole
from dasp.mixing.constraints import Constraints
from dasp.mixing.controls import SEND, send_gain

# Processors whose output is right only statistically: what they leave is no fault of a control.
_STATISTICAL = ("noise_shaped_reverb",)
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-2, 1e-6, 1e4
# Dampings that are tried at each step, as factors of the last best one.
# What a control is moved by, on the normalised scale, to see what it does.
_DIFFERENCE = 1e-3
_TRIED = (0.1, 1.0, 10.0)
# Below so much of the reference's loudest band nothing counts.
_FLOOR = 1e-7
# Bands of the weights, in bins relative to their frequency.
_BANDS = 40
# What equalisers and knees usually deviate by, in steps: where the waveform does not say, they stay usual.
_USUAL = 10.0
_WITH_USUAL = ("parametric_eq.", "knee_db")
# A step that improves less than this is the last.
_ENOUGH = 1e-3


class Stretch:
    """A stretch of the tracks with what comes before it, and of the reference.

    Attributes:
        tracks: Tracks `(channels, lead + samples)` each.
        reference: The mix `(2, samples)`.
        lead: Samples before the stretch.
    """

    def __init__(self, tracks: Sequence[Tensor], reference: Tensor, begin: int, samples: int, lead: int) -> None:
        self.lead = min(lead, begin)
        self.tracks = [track[..., begin - self.lead : begin + samples] for track in tracks]
        self.reference = reference[..., begin : begin + samples]


def can_refine(console: DifferentiableMixingConsole) -> bool:
    """Whether the mix is a sum of strips that goes on from there: what comes late or from before the fader is not."""
    return console.latency == 0 and not console.pre_fader


class Refinement:
    """Damped Gauss-Newton steps on normalised controls, where they obey constraints.

    Args:
        console: The console; groups have no tracks.
        stretches: What is compared.
        controls: Where to begin.
        obey: The constraints.
        scales: Size of a step of each control, by section.
        precision: Of the power of a band of the reference, what counts as noise where the residual is less.
    """

    def __init__(
        self,
        console: DifferentiableMixingConsole,
        stretches: Sequence[Stretch],
        controls: Mapping[str, Tensor],
        obey: Constraints,
        scales: Mapping[str, Tensor],
        precision: float = 1e-2,
    ) -> None:
        self._console, self._stretches, self._obey = console, stretches, obey
        own = obey({section: u.detach() for section, u in controls.items() if section in ("track", "master")})
        self.controls = {section: u.detach().clone() for section, u in {**controls, **own}.items()}
        self._damping, self._precision = _FIRST_DAMPING, precision
        tracks = len(stretches[0].tracks)
        # One column per track and control of the strip, sends included, then those of the master.
        free = obey.free("track").expand(tracks, -1).clone()
        for position, bus in enumerate(console.buses):
            if any(stage.spec.name in _STATISTICAL for stage in console.sections()[bus].stages().values()):
                free[:, console.strip.num_controls + position] = False
        self._free = torch.cat([free.T.reshape(-1), obey.free("master")])
        widths = [scales["track"][:, None].expand(-1, tracks).reshape(-1), scales["master"]]
        self._scale = torch.cat(widths).double()
        self._usual = self._flat(console.default_controls(tracks))
        names = [name for name in console.control_names("track") for _ in range(tracks)]
        names += console.control_names("master")
        usual = torch.tensor([any(kind in name for kind in _WITH_USUAL) for name in names])
        self._prior = torch.where(usual, (_USUAL * self._scale) ** -2, 0.0)
        self._weights: list[Tensor] = []

    @torch.no_grad()
    def step(self) -> bool:
        """One step; whether another is worth it."""
        normal, slope, start, weights = self._normal_equations()
        u = self._flat(self.controls)
        normal += torch.diag(self._prior)
        slope += self._prior * (u - self._usual)
        start += self._cost(u)
        # What is at an end and would go beyond it stays there.
        active = self._free & ~(((u <= 0) & (slope > 0)) | ((u >= 1) & (slope < 0)))
        slope, size = (slope * self._scale)[active], self._scale[active]
        normal = normal[active][:, active] * size * size[:, None]
        diagonal = normal.diagonal().clone()
        # What has no effect has no derivative either, and must not be moved by rounding.
        ridge = torch.diag(diagonal + 1e-4 * diagonal.mean() + 1e-30)
        best, chosen, damping = start, None, self._damping
        while True:
            for factor in _TRIED:
                change = torch.zeros_like(u)
                change[active] = -size * torch.linalg.solve(normal + damping * factor * ridge, slope)
                moved = self._moved(u + change)
                reached = self._cost(self._flat(moved))
                reached += sum(self._power(s, moved, w) for s, w in zip(self._stretches, weights, strict=True))
                if reached < best:
                    best, chosen, self._damping = reached, moved, max(damping * factor, _LEAST_DAMPING)
            if chosen is not None or damping > _MOST_DAMPING:
                break
            damping *= 1000
        if chosen is None:
            return False
        self.controls = chosen
        return best < (1 - _ENOUGH) * start

    def _cost(self, u: Tensor) -> float:
        return float((self._prior * (u - self._usual).square()).sum())

    def _flat(self, controls: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([controls["track"].T.reshape(-1), controls["master"]]).double()

    def _moved(self, flat: Tensor) -> dict[str, Tensor]:
        track = self.controls["track"]
        parts = flat.clamp(0, 1).to(track).split([track.numel(), self.controls["master"].numel()])
        moved = self._obey({"track": parts[0].reshape(track.T.shape).T.clone(), "master": parts[1]})
        return {**self.controls, **moved}

    def _strips(self, stretch: Stretch, u: Tensor) -> Tensor:
        """The strips of all tracks, `(tracks, 2, samples)`."""
        return self._console.strips(stretch.tracks, self._console.strip.denormalize(u))

    def _gains(self, u: Tensor) -> Tensor:
        """The gains of sends, `(tracks, buses)`."""
        return send_gain(SEND.denormalize(u[:, self._console.strip.num_controls :], self._console.sample_rate))

    def _wet(self, sent: Tensor) -> Tensor | float:
        """The returns of buses that are sent `(..., buses, 2, samples)`."""
        chains = self._console.sections()
        returns = [
            chains[bus].process(sent[..., position, :, :], chains[bus].denormalize(self.controls[bus]))
            for position, bus in enumerate(self._console.buses)
        ]
        return sum(returns)

    def _after(self, total: Tensor, master: Tensor) -> Tensor:
        return self._console.master.process(total, self._console.master.denormalize(master))

    def _mixed(self, stretch: Stretch, controls: Mapping[str, Tensor]) -> Tensor:
        u = controls["track"]
        strips = self._strips(stretch, u[:, : self._console.strip.num_controls])
        sent = torch.einsum("kct,kb->bct", strips, self._gains(u))
        return self._after(strips.sum(0) + self._wet(sent), controls["master"])[..., stretch.lead :]

    def _power(self, stretch: Stretch, controls: Mapping[str, Tensor], weight: Tensor) -> float:
        residual = self._mixed(stretch, controls) - stretch.reference
        return float((_spectrum(residual) * weight).square().sum())

    def _normal_equations(self) -> tuple[Tensor, Tensor, float, list[Tensor]]:
        """Products of all columns with each other and with the residual, the power of this, and its weights."""
        count = len(self._free)
        normal, slope = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        power = 0.0
        weights: list[Tensor] = []
        columns = self._free.nonzero()[:, 0]
        for stretch in self._stretches:
            residual = self._mixed(stretch, self.controls) - stretch.reference
            if len(self._weights) < len(self._stretches):
                self._weights.append(_weights(residual, stretch.reference, self._precision))
            weight = self._weights[len(weights)]
            weights.append(weight)
            row = (_spectrum(residual) * weight).reshape(-1)
            power += float(row.square().sum())
            jacobian = (self._columns(stretch, weight)).reshape(len(columns), -1)
            normal[columns[:, None], columns] += (jacobian @ jacobian.T).double()
            slope[columns] += (jacobian @ row).double()
        return normal, slope, power, weights

    def _columns(self, stretch: Stretch, weight: Tensor) -> Tensor:
        """Weighted spectra of the derivatives of the mix by each free control.

        By differences, since one more mix takes a third of the time of a derivative in forward mode, and is right to
        the square root of the precision, which is more than a damped step can use.  Of what a strip does, its way
        through buses is left out: it is the smaller part by far, and would take most of the time.
        """
        track, master = self.controls["track"], self.controls["master"]
        tracks, controls = track.shape
        own = self._console.strip.num_controls
        strips, gains = self._strips(stretch, track[:, :own]), self._gains(track)
        sent = torch.einsum("kct,kb->bct", strips, gains)
        wet = self._wet(sent)
        total = strips.sum(0) + wet
        start = self._after(total, master)
        found = []

        def column(moved_total: Tensor, u: Tensor, moved: Tensor) -> None:
            change = (self._after(moved_total, u) - start)[..., stretch.lead :] / moved
            found.append(_spectrum(change) * weight)

        for control in range(controls):
            wanted = self._free[control * tracks : (control + 1) * tracks]
            if not bool(wanted.any()):
                continue
            changed = track.clone()
            # Inwards, as seen from either end.
            moved = torch.where(track[:, control] > 0.5, -_DIFFERENCE, _DIFFERENCE)
            changed[:, control] += moved
            if control < own:
                rise: Tensor | float = (self._strips(stretch, changed[:, :own]) - strips)[wanted]
            else:
                more = torch.einsum("kct,kb->kbct", strips[wanted], (self._gains(changed) - gains)[wanted])
                rise = self._wet(sent + more) - wet
            column(total + rise, master, moved[wanted, None, None])
        for control in self._free[tracks * controls :].nonzero()[:, 0]:
            moved = torch.where(master[control] > 0.5, -_DIFFERENCE, _DIFFERENCE)
            changed = master.clone()
            changed[control] += moved
            column(total[None], changed, moved)
        return torch.cat(found)


def _spectrum(x: Tensor) -> Tensor:
    """Real and imaginary parts of the spectrum, `(..., channels, bins, 2)`."""
    return torch.view_as_real(torch.fft.rfft(x, norm="ortho"))


def _weights(residual: Tensor, reference: Tensor, precision: float) -> Tensor:
    """One over the amplitude of what a band leaves unexplained, `(channels, bins, 1)`.

    Bands count by how well they are explained: where the reference has what no control makes, such as noise, errors of
    the controls are no larger than that and say little.
    """
    left, whole = (_smoothed(_spectrum(x).square().sum(-1)) for x in (residual, reference))
    return (left + precision * whole + _FLOOR * whole.amax()).clamp_min(1e-30).rsqrt()[..., None]


def _smoothed(power: Tensor) -> Tensor:
    """Mean power of bands that become wider with frequency, at each bin."""
    bins = power.shape[-1]
    edges = torch.unique(torch.logspace(0, 1, _BANDS, dtype=torch.float64).sub(1).div(9).mul(bins).long())
    edges[-1] = bins
    means = [band.mean(-1, keepdim=True).expand_as(band) for band in power.split(edges.diff().tolist(), -1)]
    return torch.cat(means, -1)
