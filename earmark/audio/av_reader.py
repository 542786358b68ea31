"""Reads audio through PyAV (FFmpeg): everything but uncompressed samples.

Conventions: samples are float32, shape (channel, time), in the file's own channels, because FFmpeg's downmix
is not their mean. FFmpeg itself prints nothing: what it would say becomes ``faults`` where sound is lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from earmark.audio.formats import ALLOWED, FORMATS, Extent, extent, format_of, is_framed, mp3_info
from earmark.audio.mp3_frames import parse_head
from earmark.audio.pcm_header import PcmHeader
from earmark.audio.sources import ByteRange, first_line
from earmark.audio.stream_ends import bytes_after_flac, exact_vorbis
from earmark.audio.tags import skip_tags
from earmark.errors import AudioError

Floats = NDArray[np.float32]
_BLOCK = 1 << 14
"""Samples that are handed on together at least; a codec's frames have some hundreds."""
_TOLERANCE_S = 0.1
"""How far the stated duration may exceed the sound: codec frames do not end at the stated time."""
FLAC_OPTIONS = {"err_detect": "crccheck+explode"}
"""Else a damaged frame is decoded to noise."""
MAX_PIXELS = str(4096 * 2304)
"""FFmpeg decodes a picture of each track to describe it; a small file could hold one of gigabytes."""
_READ_ERRORS = (av.FFmpegError, ValueError, OverflowError, MemoryError)


class AvReader:
    """A reader on top of FFmpeg.

    Args:
        file: The file; other recordings may follow in it.
        suffix: Of its name, such as ".mp3", for files whose first bytes leave their format open.
        header: Its header, if it is a WAV, AIFF or CAF file with compressed samples.

    Raises:
        AudioError: If there is no sound that FFmpeg decodes; a few words, without the file's name.
    """

    def __init__(self, file: ByteRange, suffix: str, header: PcmHeader | None = None) -> None:
        kind = format_of(file)
        if header:
            found = Extent(header.end, header.stated is not None and header.size < header.stated)
        else:
            found = extent(file, kind)
        self.end, self._is_cut = found.end, found.is_cut
        self._file = file.part(0, self.end)
        self._container = _open(self._file, kind, FORMATS.get(suffix))
        self.faults: list[str] = []
        self.notes: list[str] = []
        self._lost_bytes = 0
        self._tolerance_s = _TOLERANCE_S
        try:
            self._track = self._choose_track()
            self._frames = self._decoded()
            if self._is_ogg_vorbis():
                self._frames = exact_vorbis(self._frames, int(self._track.duration or 1 << 62))
            self._first = next(self._frames, None)
        except BaseException:
            self.close()
            raise
        if self._first is None:
            damage = " (the file is damaged, or cut off before them)" if self._is_damaged() else ""
            self.close()
            raise AudioError(f"no samples could be read{damage}")
        self.sample_rate, self.channels = self._first[0], len(self._first[1])
        self.duration_s = self._stated_duration_s()

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yields all samples in order, each block with its rate in Hz."""
        held: list[Floats] = []
        size, kind, samples = 0, (0, 0), 0.0
        first = self._first
        assert first is not None
        for rate, frame in (one for source in ((first,), self._frames) for one in source):
            if held and ((rate, len(frame)) != kind or size >= _BLOCK):
                yield kind[0], np.concatenate(held, 1)
                held, size = [], 0
            held.append(frame)
            kind, size = (rate, len(frame)), size + frame.shape[1]
            samples += frame.shape[1] / rate
        if held:
            yield kind[0], np.concatenate(held, 1)
        self._check_end(samples)
        self.close()  # a file may consist of thousands of streams

    def close(self) -> None:
        """Closes FFmpeg's part; the file stays open."""
        self._container.close()

    def _choose_track(self) -> Any:
        tracks = self._container.streams.audio
        if not tracks:
            raise AudioError("the file has no audio track")
        default = [track for track in tracks if track.disposition & av.stream.Disposition.default]
        chosen = (default or tracks)[0]
        if len(tracks) > 1:
            number = list(tracks).index(chosen) + 1
            self.notes.append(f"audio track {number} of {len(tracks)} is read, the default one")
        if chosen.codec_context is None:
            raise AudioError("the codec of its audio track is not supported, or the track is encrypted")
        chosen.codec_context.thread_count = 1
        for stream in self._container.streams:
            if stream.index != chosen.index:
                stream.discard = av.stream.Discard.all
        return chosen

    def _decoded(self) -> Iterator[tuple[int, Floats]]:
        """Sample rate and samples of each frame; a packet that cannot be decoded is skipped and counted."""
        codec = self._track.codec_context
        if codec.name == "alac" or self._is_ogg_vorbis():  # FFmpeg would cut the last frame twice
            codec.flags2 |= av.codec.context.Flags2.skip_manual
        if codec.name == "flac":
            codec.options = FLAC_OPTIONS
        for packet in self._counted(self._packets()):
            try:
                frames = codec.decode(packet)
            except _READ_ERRORS:
                if packet.size and bytes(packet).strip(b"\0"):
                    self._lost_bytes += packet.size
                continue
            for frame in frames:
                # Of an mp3's first frame at another rate, only the codec has the rate.
                if samples := samples_of(frame):
                    yield int(codec.sample_rate or frame.sample_rate), samples[0]

    def _counted(self, packets: Iterator[Any]) -> Iterator[Any]:
        """The same packets; bytes between them are counted as lost."""
        is_framed_format = is_framed(self._container.format.name)
        after: int | None = None
        last: Any = None
        for packet in packets:
            if packet.size:
                last = packet
                if is_framed_format and packet.pos is not None:
                    self._lost_bytes += max(0, packet.pos - after) if after is not None else 0
                    after = packet.pos + packet.size
            yield packet
        if after is not None:
            self._lost_bytes += self._file.size - skip_tags(self._file, after)
        if last is not None and self._container.format.name == "mp3":
            with suppress(ValueError):  # FFmpeg decodes a part of a frame without a word
                self._is_cut = self._is_cut or parse_head(bytes(last)[:4])[0] > last.size
        if last is not None and self._container.format.name == "flac":
            self.end -= bytes_after_flac(bytes(last), self._is_flac_frame)

    def _is_flac_frame(self, content: bytes) -> bool:
        decoder: Any = av.CodecContext.create("flac", "r")
        decoder.extradata = self._track.codec_context.extradata
        decoder.options = FLAC_OPTIONS
        try:
            return bool(decoder.decode(av.Packet(content)))
        except _READ_ERRORS:
            return False

    def _is_ogg_vorbis(self) -> bool:
        return bool(self._container.format.name == "ogg" and self._track.codec_context.name == "vorbis")

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self._container.demux(self._track)
        except _READ_ERRORS:
            self._is_cut = True

    def _stated_duration_s(self) -> float | None:
        """The sound track's own duration, where the file states it; FFmpeg estimates it for others."""
        kind = self._container.format.name.split(",")[0]
        track_s = float((self._track.duration or 0) * self._track.time_base)
        if kind == "mp3":
            frames, size = mp3_info(self._file)
            if size is not None:  # which is right more often than the number of frames
                self._tolerance_s = 0.001 if size > self._file.size else float("inf")
            return track_s if frames and track_s > 0 else None
        if kind == "matroska" and len(self._container.streams) == 1 and self._container.duration:
            return float(self._container.duration / av.time_base)
        return track_s if track_s > 0 and kind not in _ESTIMATED else None

    def _is_damaged(self) -> bool:
        return bool(self._is_cut or self._lost_bytes or self._file.failure)

    def _check_end(self, read_s: float) -> None:
        if self._file.failure:
            self.faults.append(f"reading stopped at {read_s:.2f} s: {first_line(self._file.failure)}")
        elif self.duration_s and read_s < self.duration_s - self._tolerance_s:
            self.faults.append(f"the file is cut off: {read_s:.2f} of {self.duration_s:.2f} s could be read")
        elif self._is_cut:
            self.faults.append(f"the file is damaged or cut off: it could be read up to {read_s:.2f} s")
        elif self._lost_bytes:
            self.faults.append(
                f"the file is damaged or cut off: {self._lost_bytes} bytes could not be decoded, "
                f"{read_s:.2f} s could be"
            )


_ESTIMATED = ("aac", "ac3", "eac3", "dts", "amr", "mpegts", "mpeg", "matroska", "asf")
"""Formats whose duration FFmpeg estimates, or takes from where it cannot be relied on."""


def _open(file: ByteRange, kind: str | None, by_suffix: str | None) -> Any:
    """Opens a file as the format of its first bytes, as what FFmpeg detects, or as what its name says."""
    options = {"format_whitelist": ALLOWED, "max_pixels": MAX_PIXELS}
    error: Exception | None = None
    for attempt in (kind,) if kind else (None, by_suffix):
        if attempt is None and error:
            break
        file.seek(0)
        try:
            return av.open(
                file, format=attempt, options=options, metadata_errors="ignore", buffer_size=1 << 16
            )
        except _READ_ERRORS as raised:
            error = raised
    if kind:
        raise AudioError(f"damaged, or cut off before the first sample (FFmpeg: {_why(error)})") from error
    raise AudioError("not a format that can be read") from error


def _why(error: Exception | None) -> str:
    return getattr(error, "strerror", None) or (first_line(error) if error else "unknown")


def samples_of(frame: Any) -> list[Floats]:
    """The samples of a frame, float32 (channel, time), as a list of one; empty if it has none."""
    channels = frame.layout.nb_channels
    if not frame.samples or not channels:
        return []
    if frame.format.name == "fltp" and channels == 1:  # frames are short, and PyAV's own way takes long
        return [np.frombuffer(frame.planes[0], np.float32, frame.samples)[np.newaxis]]
    values = _wide_integers(frame) if frame.format.name in ("s64", "s64p") else frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, channels).T
    if values.dtype.kind == "f":
        return [values.astype(np.float32, copy=False)]
    scale = np.float32(2.0 ** (1 - 8 * values.dtype.itemsize))
    floats = np.multiply(values, scale, dtype=np.float32, casting="unsafe")
    return [floats - np.float32(1) if values.dtype.kind == "u" else floats]


def _wide_integers(frame: Any) -> NDArray[np.int64]:
    """The samples of a frame of 64-bit integers, which PyAV does not convert, in the shape of its others."""
    count = frame.samples * (1 if frame.format.is_planar else frame.layout.nb_channels)
    return np.stack([np.frombuffer(plane, np.int64, count) for plane in frame.planes])
