"""Refines controls against the waveform of a reference, by least squares: Gauss-Newton with damping.

A spectral distance leads controls near from afar, and is flat where two of them trade against each other.  Where stems
and reference align to the sample, the difference of the two waveforms says more: with the same console it goes to
nothing.  It is linear in most of what a mix does, so that a few steps with all derivatives settle what a hundred along
a gradient do not.
"""

from __future__ import annotations

import copy
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
_TRIED = (0.1, 1.0, 10.0)
# How much of itself is added to a strip to see what the master makes of it.
_SHARE = 1e-2
# What a control is moved by, on the normalised scale, to see what it does.
_DIFFERENCE = 1e-3
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
        others: The sum of strips that are held as they are, beside those of the tracks: `(2, lead + samples)`, or 0.
        others_sent: What these send to each bus, `(buses, 2, lead + samples)`, or 0.
    """

    def __init__(self, tracks: Sequence[Tensor], reference: Tensor, begin: int, samples: int, lead: int) -> None:
        self.lead = min(lead, begin)
        self.tracks = [track[..., begin - self.lead : begin + samples] for track in tracks]
        self.reference = reference[..., begin : begin + samples]
        self.others: Tensor | float = 0.0
        self.others_sent: Tensor | float = 0.0


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
        with_master: Whether the controls of the master are found too.
        weights: Weight of each bin of each stretch, `(channels, bins, 1)`; by default from the first residuals.

    Attributes:
        controls: What is found so far, normalised.
    """

    def __init__(
        self,
        console: DifferentiableMixingConsole,
        stretches: Sequence[Stretch],
        controls: Mapping[str, Tensor],
        obey: Constraints,
        scales: Mapping[str, Tensor],
        precision: float = 1e-2,
        with_master: bool = True,
        weights: Sequence[Tensor] | None = None,
    ) -> None:
        self._console, self._stretches, self._obey = console, stretches, obey
        own = obey({section: u.detach() for section, u in controls.items() if section in ("track", "master")})
        self.controls = {section: u.detach().clone() for section, u in {**controls, **own}.items()}
        self._scales, self._damping, self._precision = scales, _FIRST_DAMPING, precision
        tracks = len(stretches[0].tracks)
        # One column per track and control of the strip, sends included, then those of the master.
        free = obey.free("track").expand(tracks, -1).clone()
        for position, bus in enumerate(console.buses):
            if any(stage.spec.name in _STATISTICAL for stage in console.sections()[bus].stages().values()):
                free[:, console.strip.num_controls + position] = False
        self._free = torch.cat([free.T.reshape(-1), obey.free("master") & with_master])
        widths = [scales["track"][:, None].expand(-1, tracks).reshape(-1), scales["master"]]
        self._scale = torch.cat(widths).double()
        self._usual = self._flat(console.default_controls(tracks))
        names = [name for name in console.control_names("track") for _ in range(tracks)]
        names += console.control_names("master")
        usual = torch.tensor([any(kind in name for kind in _WITH_USUAL) for name in names])
        self._prior = torch.where(usual, (_USUAL * self._scale) ** -2, 0.0)
        if weights is None:
            with torch.no_grad():
                residuals = [self._residual(stretch, self.controls) for stretch in stretches]
            weights = [_weights(r, s.reference, precision) for r, s in zip(residuals, stretches, strict=True)]
        self._weights = weights

    @torch.no_grad()
    def cost(self, controls: Mapping[str, Tensor] | None = None) -> float:
        """What is minimised: the weighted power of the residual, and what unusual settings cost."""
        controls = self.controls if controls is None else controls
        unusual = (self._prior * (self._flat(controls) - self._usual).square()).sum()
        return float(unusual) + sum(
            float((_spectrum(self._residual(stretch, controls)) * weight).square().sum())
            for stretch, weight in zip(self._stretches, self._weights, strict=True)
        )

    @torch.no_grad()
    def unexplained(self) -> float:
        """The power of the residual over that of the reference."""
        left = sum(float(self._residual(stretch, self.controls).square().sum()) for stretch in self._stretches)
        return left / max(sum(float(stretch.reference.square().sum()) for stretch in self._stretches), 1e-30)

    @torch.no_grad()
    def alone(self, track: int) -> Refinement:
        """The refinement of one track, by the same weights, while all else is held; its controls are of that track."""
        own = self._console.strip.num_controls
        u = self.controls["track"]
        gains, stretches = self._gains(u), []
        for whole in self._stretches:
            part = copy.copy(whole)
            strips = self._strips(whole, u[:, :own])
            strips[track] = 0.0
            part.tracks, part.others = [whole.tracks[track]], strips.sum(0)
            part.others_sent = torch.einsum("kct,kb->bct", strips, gains)
            stretches.append(part)
        controls = {**self.controls, "track": u[track : track + 1]}
        obey = self._obey.of_track(track)
        return Refinement(self._console, stretches, controls, obey, self._scales, self._precision, False, self._weights)

    def begun_at(self, track: Tensor) -> Refinement:
        """The same refinement of one track from other controls `(P,)` on."""
        controls = {**self.controls, "track": track[None]}
        found = copy.copy(self)
        found.controls = {**controls, **self._obey({"track": controls["track"]})}
        found._damping = _FIRST_DAMPING
        return found

    @property
    def free(self) -> Tensor:
        """Which controls are found, bool, in the order of columns: control by control, and track by track in each."""
        return self._free

    @property
    def prior(self) -> Tensor:
        """What the square of a deviation from the default costs, in the order of columns."""
        return self._prior

    @torch.no_grad()
    def wanted(self, edges: Tensor) -> tuple[Tensor, Tensor]:
        """By what each strip would have to be filtered for the residual to go.

        Args:
            edges: Edges of bands in Hz, rising.

        Returns:
            A complex factor for each track and band, `(tracks, bands)`, and the weighted power of what it acts on.
        """
        tracks, bands = len(self._stretches[0].tracks), len(edges) - 1
        power = torch.zeros(tracks, bands, dtype=torch.float64)
        product = torch.zeros(tracks, bands, dtype=torch.complex128)
        u, master = self.controls["track"], self.controls["master"]
        for stretch, weight in zip(self._stretches, self._weights, strict=True):
            strips = self._strips(stretch, u[:, : self._console.strip.num_controls])
            sent = torch.einsum("kct,kb->bct", strips, self._gains(u)) + stretch.others_sent
            total = strips.sum(0) + stretch.others + self._wet(sent)
            start = self._after(total, master)
            heard = (self._after(total + _SHARE * strips, master) - start)[..., stretch.lead :] / _SHARE
            residual = start[..., stretch.lead :] - stretch.reference
            part, left = (torch.view_as_complex(_spectrum(x) * weight).to(torch.complex128) for x in (heard, residual))
            frequency = torch.linspace(0, self._console.sample_rate / 2, part.shape[-1], dtype=edges.dtype)
            band = torch.bucketize(frequency, edges) - 1
            inside = (band >= 0) & (band < bands)
            power.index_add_(1, band[inside], part.abs().square().sum(1)[:, inside])
            product.index_add_(1, band[inside], (part.conj() * left).sum(1)[:, inside])
        return 1 - product / power.clamp_min(1e-30), power

    @torch.no_grad()
    def step(self) -> bool:
        """One step; whether another is worth it."""
        normal, slope = self._normal_equations()
        start = self.cost()
        u = self._flat(self.controls)
        normal += torch.diag(self._prior)
        slope += self._prior * (u - self._usual)
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
                reached = self.cost(moved)
                if reached < best:
                    best, chosen, self._damping = reached, moved, max(damping * factor, _LEAST_DAMPING)
            if chosen is not None or damping > _MOST_DAMPING:
                break
            damping *= 1000
        if chosen is None:
            return False
        self.controls = chosen
        return best < (1 - _ENOUGH) * start

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

    def _residual(self, stretch: Stretch, controls: Mapping[str, Tensor]) -> Tensor:
        """What the mix is more than the reference, `(2, samples)`."""
        u = controls["track"]
        strips = self._strips(stretch, u[:, : self._console.strip.num_controls])
        sent = torch.einsum("kct,kb->bct", strips, self._gains(u)) + stretch.others_sent
        total = strips.sum(0) + stretch.others + self._wet(sent)
        return self._after(total, controls["master"])[..., stretch.lead :] - stretch.reference

    def _normal_equations(self) -> tuple[Tensor, Tensor]:
        """Products of all columns with each other and with the residual."""
        count = len(self._free)
        normal, slope = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)
        columns = self._free.nonzero()[:, 0]
        for stretch, weight in zip(self._stretches, self._weights, strict=True):
            row = (_spectrum(self._residual(stretch, self.controls)) * weight).reshape(-1)
            jacobian = (self._columns(stretch, weight)).reshape(len(columns), -1)
            normal[columns[:, None], columns] += (jacobian @ jacobian.T).double()
            slope[columns] += (jacobian @ row).double()
        return normal, slope

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
        sent = torch.einsum("kct,kb->bct", strips, gains) + stretch.others_sent
        wet = self._wet(sent)
        total = strips.sum(0) + stretch.others + wet
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
