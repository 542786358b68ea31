"""One side of one job: runs it once, then again for every line of standard input.

    python -m benchmarks.worker SIDE JOB FOLDER THREADS

Prints the output of the first run as a JSON list, so that both sides can be compared; then, for each line
read, the seconds per call by wall clock and processor, as a JSON list: means over a burst of calls.

Conventions: SIDE is "earmark" or "reference". JOB is "front_end" (10 s), "clip MODEL" (10 s of samples to
scores), or "long MODEL WINDOW_S HOP_S" (a file to the scores of its windows); of earmark also "decode" and
"resample" (reading a file, and resampling it), "file MODEL ENGINE PRECISION" (from the file to scores) and
"network MODEL ENGINE PRECISION" (from log-mel to logits). Models are loaded before the clock starts.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import earmark
from earmark.audio import open_audio, resample_blocks
from earmark.features.front_end import FrontEnd
from earmark.features.log_mel import LogMel
from earmark.inference.load import open_session

Job = Callable[[], NDArray[np.float32]]
BURST_S = 0.25
FRONT_END = FrontEnd()


def noise(sample_rate: int) -> NDArray[np.float32]:
    """A clip of 10 s."""
    return np.random.default_rng(1).uniform(-0.5, 0.5, 10 * sample_rate).astype(np.float32)


CLIP = noise(FRONT_END.sample_rate)


def earmark_job(job: str, folder: Path, threads: int) -> Job:
    """The job in earmark."""
    if job == "front_end":
        log_mel = LogMel(FRONT_END)
        return lambda: log_mel(CLIP)
    if job in ("decode", "resample"):
        return lambda: _waveform(folder / "clip.wav", resampled=job == "resample")
    kind, model, *lengths = job.split()
    if kind in ("file", "network"):
        return _engine_job(kind, folder, model, lengths, threads)
    tagger = earmark.load(folder / f"{model}.onnx", threads=threads)
    if kind == "clip":
        rate = tagger.info.front_end.sample_rate
        clip = noise(rate)
        return lambda: tagger.tag(clip, rate).scores
    window_s, hop_s = map(float, lengths)
    path = folder / "long.wav"
    return lambda: np.stack([w.scores for w in tagger.tag(path, window_s=window_s, hop_s=hop_s).windows])


def _waveform(path: Path, resampled: bool) -> NDArray[np.float32]:
    with open_audio(path) as stream:
        blocks = stream.blocks()
        if resampled:
            blocks = resample_blocks(blocks, stream.sample_rate, FRONT_END.sample_rate)
        return np.concatenate(list(blocks))


def _engine_job(kind: str, folder: Path, model: str, options: list[str], threads: int) -> Job:
    engine, precision = options
    path = folder / f"{model}.onnx"
    if kind == "file":
        tagger = earmark.load(path, threads=threads, engine=engine, precision=precision)  # type: ignore[arg-type]
        return lambda: tagger.tag(folder / "clip.wav").scores
    session, info = open_session(path, threads, engine, precision)
    log_mel = LogMel(FRONT_END)(CLIP)[None]
    return lambda: session.run(["logits", "embedding"], {info.graph_input: log_mel})[0]


def reference_job(job: str, folder: Path, threads: int) -> Job:
    """The job in the reference."""
    import torch

    from benchmarks.reference import Reference, StftLogMel

    if job == "front_end":
        torch.set_num_threads(threads)
        log_mel = StftLogMel(FRONT_END)
        return torch.no_grad()(lambda: log_mel(torch.from_numpy(CLIP)[None])[0].numpy())
    kind, model, *lengths = job.split()
    reference = Reference(str(folder / model), threads)
    if kind == "clip":
        return lambda: reference.clip(CLIP)
    window_s, hop_s = map(float, lengths)
    path = str(folder / "long.wav")
    return lambda: reference.windows(reference.read(path), window_s, hop_s)


def main(side: str, job: str, folder: str, threads: str) -> None:
    """Sets up the job, runs it once, then measures until the input ends."""
    set_up = {"earmark": earmark_job, "reference": reference_job}[side]
    run = set_up(job, Path(folder), int(threads))
    print(json.dumps(run().ravel()[:100_000].tolist()), flush=True)
    for _ in sys.stdin:
        print(json.dumps(_seconds(run)), flush=True)


def _seconds(run: Job) -> tuple[float, float]:
    """Means over a burst, whose length is processor time: other jobs do not shorten it."""
    starts = time.perf_counter(), time.process_time()
    calls = 0
    while time.process_time() - starts[1] < BURST_S:
        run()
        calls += 1
    return (time.perf_counter() - starts[0]) / calls, (time.process_time() - starts[1]) / calls


if __name__ == "__main__":
    main(*sys.argv[1:])
