"""Effects without gradients, in a module that the processes of workers can import."""

from __future__ import annotations

import os
import random
import threading
import time

import numpy as np
import torch

from dasp import Param


class Linear:
    """y = x + u @ matrix in every channel, of which the gradient is known; counts its calls."""

    def __init__(self, controls, samples, seed=0, dtype=torch.float64):
        generator = torch.Generator().manual_seed(seed)
        self.matrix = torch.randn(controls, samples, generator=generator, dtype=dtype)
        self.shapes = []

    def __call__(self, x, u):
        self.shapes.append(tuple(u.shape))
        return x + (u @ self.matrix)[..., None, :]

    def gradient(self, grad):
        """The true gradient of `(grad * y).sum()`."""
        return grad.sum(-2) @ self.matrix.T


class Recursive:
    """A smoother that remembers where it was, until it is reset."""

    def __init__(self):
        self.value = 0.0

    def reset(self):
        self.value = 0.0

    def __call__(self, x, u):
        y = torch.empty_like(x)
        for n in range(x.shape[-1]):
            self.value = self.value + u[0] * (x[0, n] - self.value)
            y[0, n] = self.value
        return y


def gain(x, u):
    return x * u[..., :1, None].reshape(*u.shape[:-1], 1, 1)


def numpy_gain(x, sample_rate, gain_db):
    return x * x.dtype.type(10 ** (gain_db / 20))


GAIN = {"gain_db": Param("dB", -20, 20)}


def noise_of_torch(x, u):
    return u[..., None] * torch.randn(x.shape, dtype=x.dtype)


def noise_of_numpy(x, u):
    return u[..., None] * torch.from_numpy(np.random.standard_normal(tuple(x.shape)))  # noqa: NPY002


def noise_of_python(x, u):
    return u[..., None] * torch.tensor([[random.gauss(0, 1) for _ in range(x.shape[-1])]], dtype=x.dtype)


def noise_of_seed(x, u, seed):
    return u[..., None] * torch.from_numpy(np.random.default_rng(seed).standard_normal(tuple(x.shape)))


def noise_of_generator(x, u, generator):
    return u[..., None] * torch.randn(x.shape, dtype=x.dtype, generator=generator)


def fragile(x, u):
    """Noise that raises, dies or hangs, by its control."""
    if u[0] > 0.75:
        time.sleep(60)
    if u[0] > 0.65:
        os._exit(7)
    return raises(x, u) + noise_of_torch(x, u)


class Lasting:
    """Takes long, and has something to do at its end."""

    def __init__(self, path):
        self.path = path

    def __call__(self, x, u):
        try:
            time.sleep(60)
        finally:
            self.path.touch()


def raises(x, u):
    if u[..., 0].max() > 0.5:
        raise ArithmeticError("too loud")
    return gain(x, u)


class Rewriting:
    """A gain of u into memory of its own, which it uses again, by way of its input, which it overwrites."""

    def __call__(self, x, u):
        x.mul_(u[..., None])
        u.zero_()
        if getattr(self, "memory", np.empty(0)).shape != tuple(x.shape):
            self.memory = np.empty(tuple(x.shape))
        np.copyto(self.memory, x.numpy())
        return torch.from_numpy(self.memory)


class Recorder(Recursive):
    """A smoother with a name for its work, which nothing else calls it by."""

    __call__ = None

    def process(self, x, u):
        return Recursive.__call__(self, x, u)


class Slow:
    """Tells which threads have called it; has state, so that each worker needs its own."""

    def __init__(self, log):
        self.log = log

    def copy(self):
        return Slow(self.log)

    def reset(self):
        pass

    def __call__(self, x, u):
        time.sleep(0.02)
        self.log.append((threading.get_ident(), id(self)))
        return gain(x, u)
