"""Synthesizes the example recording: a siren drives past a ringing church bell.

    python examples/make_siren_and_bell.py [FILE]

Nothing is recorded; the result is in the public domain (CC0). Equal runs produce equal
samples (the Ogg file around them carries a random serial number).

Conventions: a signal is float64, shape (SAMPLES,), at RATE; time is in seconds, distance in metres. The
listener stands in a square; the bell hangs in a tower beside it, and a street passes on the other side.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

Signal = NDArray[np.float64]

RATE = 32_000
DURATION_S = 12.0
SAMPLES = round(DURATION_S * RATE)
SPEED_OF_SOUND = 343.0

# The vehicle: closest at PASS_S, when it is STREET_M away.
SPEED_M_S = 19.0
STREET_M = 9.0
PASS_S = 7.2
WAIL_HZ = (600.0, 1500.0)
WAIL_S = 3.2
SIREN_ON_S = 2.6

# A bell's partials, relative to its prime (hum, prime, tierce, quint, nominal, and those above), each with
# its strength and the time in which it falls by 60 dB. High partials sound first and die first.
PRIME_HZ = 392.0
STRIKES_EVERY_S = 1.5
PARTIALS = (
    (0.500, 0.40, 11.0),
    (1.000, 0.65, 7.0),
    (1.190, 0.75, 5.0),
    (1.500, 0.25, 3.2),
    (2.000, 1.00, 3.6),
    (2.510, 0.40, 2.0),
    (2.660, 0.35, 1.8),
    (3.010, 0.45, 1.6),
    (4.160, 0.40, 1.1),
    (5.430, 0.30, 0.8),
    (6.790, 0.22, 0.55),
    (8.210, 0.16, 0.4),
    (9.700, 0.10, 0.3),
)


def main() -> None:
    """Writes the recording beside this script, or to the file that is named."""
    default = Path(__file__).with_name("siren_and_bell.ogg")
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    soundfile.write(path, recording(), RATE, format="OGG", subtype="VORBIS", compression_level=0.4)


def recording() -> NDArray[np.int16]:
    """The whole scene, 16 bits, shape (SAMPLES,)."""
    random = np.random.default_rng(18)
    dry = 0.45 * bell(random) + 0.55 * passing(siren(), random)
    scene = dry + 0.35 * reverberated(dry, random) + 10 ** (-62 / 20) * murmur(random)
    fade = np.clip(np.minimum(np.arange(SAMPLES), SAMPLES - np.arange(SAMPLES)) / (0.02 * RATE), 0, 1)
    scene *= fade * 0.8 / np.abs(scene).max()
    return np.round(scene * 32767).astype(np.int16)


def seconds() -> Signal:
    """The time of each sample."""
    return np.arange(SAMPLES) / RATE


def bell(random: np.random.Generator) -> Signal:
    """A swinging bell: strikes that overlap, no two equally strong, in slightly uneven steps."""
    out = np.zeros(SAMPLES)
    for number in range(int(DURATION_S / STRIKES_EVERY_S)):
        start = round((0.25 + number * STRIKES_EVERY_S + random.normal(0, 0.015)) * RATE)
        blow = strike(random) * random.uniform(0.75, 1.0)
        out[start:] += blow[: SAMPLES - start]
    return out / np.abs(out).max()


def strike(random: np.random.Generator) -> Signal:
    """One blow of the clapper: inharmonic partials, each a slowly beating pair, and the clapper's clack."""
    time, out = seconds(), np.zeros(SAMPLES)
    hardness = random.uniform(0.8, 1.2)
    for ratio, strength, fall_s in PARTIALS:
        frequency, split = PRIME_HZ * ratio, 0.35 + 0.25 * ratio
        envelope = strength * ratio ** (0.3 * (hardness - 1)) * 10 ** (-3 * time / fall_s)
        pair = np.sin(2 * np.pi * frequency * time) + 0.6 * np.sin(
            2 * np.pi * (frequency + split) * time + 1.0
        )
        out += envelope * pair
    clack = random.normal(0, 1, SAMPLES) * np.exp(-time / 0.004)
    attack = 1 - np.exp(-time / 0.0008)
    return attack * (out + 0.8 * filtered(clack, 1200, 7000))


def siren() -> Signal:
    """The siren at the vehicle: a wail that rises faster than it falls, through a loud horn."""
    time = seconds()
    position = (time / WAIL_S + 0.1) % 1.0
    rising = np.where(position < 0.4, position / 0.4, (1 - position) / 0.6)
    low, high = WAIL_HZ
    frequency = low * (high / low) ** (rising**0.8)
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    out = np.zeros(SAMPLES)
    for harmonic in range(1, 10):
        above = np.clip(frequency * harmonic / 13_000, 0, 1)
        out += np.sin(harmonic * phase + 0.7 * harmonic) * harmonic**-0.9 * (1 - above**4)
    switched_on = np.clip((time - SIREN_ON_S) / 0.3, 0, 1)
    return switched_on * filtered(np.tanh(1.2 * out), 450, 6500)


def passing(sound: Signal, random: np.random.Generator) -> Signal:
    """The sound of a passing vehicle at a listener beside the street.

    The sound that arrives at a time left earlier, by the distance it had to go: that alone gives Doppler's
    shift. It comes with its echo from the ground and the roar of tyres and motor, falls with the distance,
    and high tones fall more.
    """
    time = seconds()
    sent, distance = departure(time, STREET_M)
    sent_echo, distance_echo = departure(time, STREET_M + 1.1)
    received = at(sound, sent) / distance - 0.5 * at(sound, sent_echo) / distance_echo
    roar = filtered(random.normal(0, 1, SAMPLES), 60, 700)
    received += 0.10 * roar / np.abs(roar).max() / distance
    received /= np.abs(received).max()
    far = np.clip(distance / 90, 0, 1)
    return (1 - far) * received + far * filtered(received, 0, 2200)


def departure(time: Signal, nearest_m: float) -> tuple[Signal, Signal]:
    """When the sound that arrives at a time left the vehicle, and from how far (solved by iteration)."""
    sent = time.copy()
    for _ in range(40):
        distance = np.hypot(nearest_m, SPEED_M_S * (sent - PASS_S))
        sent = time - distance / SPEED_OF_SOUND
    return sent, distance


def at(sound: Signal, time: Signal) -> Signal:
    """A signal read at any times, by cubic interpolation; silent before its start."""
    place = np.clip(time * RATE, 1, SAMPLES - 3)
    index = place.astype(int)
    part = place - index
    before, here, there, after = (sound[index + step] for step in (-1, 0, 1, 2))
    slope, next_slope = (there - before) / 2, (after - here) / 2
    rest = 2 * here - 2 * there + slope + next_slope
    curve = -3 * here + 3 * there - 2 * slope - next_slope
    return ((rest * part + curve) * part + slope) * part + here


def reverberated(sound: Signal, random: np.random.Generator) -> Signal:
    """The echoes of a square with stone walls: noise that falls by 60 dB in 1.1 s, the high part sooner."""
    time = seconds()
    low = filtered(random.normal(0, 1, SAMPLES), 100, 1800) * 10 ** (-3 * time / 1.1)
    high = filtered(random.normal(0, 1, SAMPLES), 1800, 8000) * 10 ** (-3 * time / 0.6)
    response = np.where(time < 0.018, 0.0, low + high)
    response /= np.sqrt(np.sum(response**2))
    size = 2 * SAMPLES
    return np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)[:SAMPLES]


def murmur(random: np.random.Generator) -> Signal:
    """A town from afar: noise whose power falls with the frequency, RMS 1."""
    spectrum = np.fft.rfft(random.normal(0, 1, SAMPLES))
    spectrum /= np.maximum(np.fft.rfftfreq(SAMPLES, 1 / RATE), 60)
    noise = np.fft.irfft(spectrum, SAMPLES)
    return noise / np.sqrt(np.mean(noise**2))


def filtered(sound: Signal, low_hz: float, high_hz: float) -> Signal:
    """The part of a signal between two frequencies, with slopes like a second-order filter's."""
    frequency = np.fft.rfftfreq(2 * SAMPLES, 1 / RATE)
    gain = 1 / np.sqrt(1 + (frequency / high_hz) ** 4)
    if low_hz:
        gain *= 1 / np.sqrt(1 + (low_hz / np.maximum(frequency, 1e-3)) ** 4)
    return np.fft.irfft(np.fft.rfft(sound, 2 * SAMPLES) * gain, 2 * SAMPLES)[:SAMPLES]


if __name__ == "__main__":
    main()
