"""Files that other programs misread are read to their end, or say what is missing.

The files of ``odd/`` were made from ``examples/siren_and_bell.ogg`` (CC0), each in the shape of one that was
reported to another project; the others are made here.
"""

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from earmark.audio import load_audio, load_piece, open_audio
from earmark.errors import AudioError

ODD = Path(__file__).parent / "odd"
RATE = 16000
SWEEP = (0.5 * np.sin(np.cumsum(np.linspace(0.02, 1, 3 * RATE)))).astype(np.float32)
TEXT = b"not a recording, but a text; " * 40
ID3V1 = b"TAG" + b"x" * 125
ID3V2 = b"ID3\4\0\0\0\0\2\1" + b"\xff\xfb" * 128 + b"x"
APE = (
    b"APETAGEX" + struct.pack("<IIII", 2000, 96, 1, 0xA0000000) + bytes(8)
    + b"z" * 64
    + b"APETAGEX" + struct.pack("<IIII", 2000, 96, 1, 0x80000000) + bytes(8)
)  # fmt: skip


def encoded(kind, subtype=None, rate=RATE, channels=1):
    target = io.BytesIO()
    soundfile.write(target, np.stack([SWEEP] * channels, 1), rate, format=kind, subtype=subtype)
    return target.getvalue()


WHOLE = {
    "wav": encoded("WAV"), "rf64": encoded("RF64", "PCM_16"), "w64": encoded("W64", "PCM_16"),
    "aiff": encoded("AIFF", "PCM_16"), "caf": encoded("CAF", "PCM_16"), "au": encoded("AU", "PCM_16"),
    "ulaw": encoded("WAV", "ULAW"), "flac": encoded("FLAC"), "mp3": encoded("MP3"),
    "vorbis": encoded("OGG", "VORBIS"), "opus": encoded("OGG", "OPUS"),
    "mov": (ODD / "memo.3gp").read_bytes(), "matroska": (ODD / "audio_starts_at_5s.mkv").read_bytes(),
    "asf": (ODD / "film.wmv").read_bytes(), "aac": (ODD / "aac_rate_change.aac").read_bytes(),
}  # fmt: skip


def read(source):
    """Seconds, warnings, and the waveform."""
    with open_audio(source) as stream:
        waveform = np.concatenate(list(stream.blocks()))
        assert stream.is_whole or stream.warnings
        return len(waveform) / stream.sample_rate, stream.warnings, waveform


SECONDS = {name: read(content)[0] for name, content in WHOLE.items()}


def bands(name):
    """Logarithmic power of each second in bands of 125 Hz, shape (second, band)."""
    waveform = load_audio(ODD / name, 8000)[0]
    seconds = waveform[: len(waveform) // 8000 * 8000].reshape(-1, 8000)
    power = np.abs(np.fft.rfft(seconds * np.hanning(8000))[:, :4000]) ** 2
    return np.log(power.reshape(-1, 32, 125).sum(2) + 1e-3)


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("chained_vorbis.ogg", 12.0),
        ("vbr_two_id3.mp3", 12.04),
        ("vbr_id3_then_zeros.mp3", 12.04),
        ("vbr_text_before.mp3", 12.04),
        ("xing_frames_zero.mp3", 12.02),
        ("cat_mono_then_stereo.mp3", 12.07),
        ("aac_mono_then_stereo.aac", 12.07),
        ("dvb.mkv", 12.03),
        ("aac_44_then_22.aac", 12.12),
        ("codec_ac3.wav", 12.02),
        ("codec_wmav2.wav", 11.98),
        ("codec_libmp3lame.wav", 12.04),
        ("film.ts", 12.02),
        ("film.wmv", 11.98),
        ("short_sound.mp4", 5.02),
        ("audio_starts_at_5s.mkv", 12.03),  # from its first sample on; the pause before it is no sound
        ("memo.3gp", 12.0),
        ("ok.m4a", 12.0),
        ("aac_rate_change.aac", 2.09),
        ("chained.mp3", 2.14),
        ("chained.ogg", 2.0),
    ],
)
def test_a_whole_file_is_read_to_its_end_without_a_warning(name, seconds):
    found, warnings, _ = read(ODD / name)
    assert found == pytest.approx(seconds, abs=0.01)
    assert warnings == []


@pytest.mark.parametrize(
    "name", ["chained_vorbis.ogg", "aac_44_then_22.aac", "cat_mono_then_stereo.mp3", "dvb.mkv"]
)
def test_a_file_in_parts_sounds_like_the_recording_throughout(name):
    expected, found = bands("ok.m4a"), bands(name)
    for second in range(12):
        assert np.corrcoef(expected[second], found[second])[0, 1] > 0.9, second


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("codec_unknown.mka", "codec"),
        ("fuzz103.caf", "times full scale"),
        ("fuzz294.mkv", "times full scale"),
        ("fuzz11673.ogg", "no samples could be read"),
        ("fuzz1336.mat4", "not a format"),
        ("rate1.wav", "1 Hz"),
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_the_file(name, words):
    for use in (
        read,
        lambda path: load_audio(path, RATE),
        lambda path: load_piece(path, RATE, 99, lambda _: 5),
    ):
        with pytest.raises(AudioError) as caught:
            use(ODD / name)
        assert str(caught.value).startswith(f"{ODD / name}: ")
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)


# --- several recordings in one file, tags, padding, and what is neither


@pytest.mark.parametrize("name", WHOLE)
def test_joined_files_are_read_one_after_the_other(name):
    seconds, warnings, _ = read(WHOLE[name] * 2)
    assert warnings == []
    assert seconds == pytest.approx(2 * SECONDS[name], abs=0.17)  # an mp3's second encoder delay stays


@pytest.mark.parametrize("tail", [bytes(5000), ID3V1], ids=["zeros", "ID3v1"])
@pytest.mark.parametrize("name", WHOLE)
def test_padding_and_tags_are_no_damage(name, tail):
    seconds, warnings, _ = read(WHOLE[name] + tail)
    assert warnings == []
    assert seconds == pytest.approx(SECONDS[name], abs=0.07)


@pytest.mark.parametrize(
    "content", [ID3V2 * 2 + WHOLE["mp3"], WHOLE["mp3"] + APE + ID3V1, ID3V2 + WHOLE["flac"]]
)
def test_tags_around_the_frames(content):
    seconds, warnings, _ = read(content)
    assert (seconds, warnings) == (3.0, [])


@pytest.mark.parametrize("name", WHOLE)
def test_bytes_that_are_left_are_named(name, tmp_path):
    path = tmp_path / "joined"
    path.write_bytes(WHOLE[name] + TEXT)
    seconds, warnings, _ = read(path)
    assert seconds == pytest.approx(SECONDS[name], abs=0.04)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{path}: ")
    assert "bytes" in warnings[0]
    with pytest.raises(AudioError, match="bytes"):
        load_audio(path, RATE, whole=True)


@pytest.mark.parametrize("name", ["mp3", "aac"])
def test_bytes_between_frames_are_named(name):
    middle = len(WHOLE[name]) // 2
    _, warnings, _ = read(WHOLE[name][:middle] + TEXT + WHOLE[name][middle:])
    assert "bytes could not be decoded" in warnings[0]


def test_an_mp3_without_a_count_of_frames_that_ends_within_a_frame_is_cut_off():
    content = (ODD / "vbr_two_id3.mp3").read_bytes()
    assert "cut off" in read(content[:60_000])[1][0]


def test_recordings_of_different_formats_and_rates_in_one_file():
    seconds, warnings, waveform = read(
        WHOLE["wav"] + encoded("FLAC", rate=44100, channels=2) + WHOLE["vorbis"]
    )
    assert (round(seconds, 2), warnings) == (6 + round(48000 / 44100, 2), [])
    np.testing.assert_array_equal(waveform[: len(SWEEP)], read(WHOLE["wav"])[2])


@pytest.mark.parametrize("seed", range(12))
def test_the_end_of_a_flac_is_found_in_what_follows(seed):
    rest = np.random.default_rng(seed).bytes(20_000)
    seconds, warnings, _ = read(WHOLE["flac"] + b"\x01" + rest)
    assert seconds == 3
    assert "the last 20001 bytes" in warnings[0]


def test_a_damaged_flac_frame_is_left_out_and_named():
    content = bytearray(WHOLE["flac"])
    content[len(content) // 2] ^= 0xFF
    _, warnings, waveform = read(bytes(content))
    assert "could be read" in warnings[0]
    assert np.abs(waveform[:8192] - SWEEP[:8192]).max() < 1e-4


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_short_vorbis_files_have_all_their_samples(rate, channels):
    for count in (1, 100, 30_000, 48_000):
        target = io.BytesIO()
        soundfile.write(target, np.stack([SWEEP[:count]] * channels, 1), rate, format="OGG", subtype="VORBIS")
        expected = soundfile.read(io.BytesIO(target.getvalue()), dtype="float32", always_2d=True)[0].mean(1)
        np.testing.assert_allclose(read(target.getvalue())[2], expected, rtol=0, atol=1e-6)


# --- tracks


def film(path, tracks, default):
    """A Matroska file of silent and loud audio tracks."""
    import av

    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in tracks]
        streams[default].disposition = av.stream.Disposition.default
        for stream, level in zip(streams, tracks, strict=True):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1600), level, np.int16), "s16", "mono")
            frame.sample_rate, frame.pts = RATE, 0
            container.mux([*stream.encode(frame), *stream.encode(None)])
    return path


def test_the_default_track_is_read_and_the_others_are_named(tmp_path):
    path = film(tmp_path / "film.mkv", [4096, 8192, 16384], default=1)
    _, warnings, waveform = read(path)
    assert set(waveform) == {0.25}
    assert warnings == [f"{path}: audio track 2 of 3 is read, the default one"]
    assert load_audio(path, RATE, whole=True)[0].size == 1600


# --- sizes in headers


def sparse(path, head, size, marks=()):
    """A file of zeros with a head, and some samples at places."""
    with path.open("wb") as target:
        target.write(head)
        for at, content in marks:
            target.seek(at)
            target.write(content)
        target.truncate(size)
    return path


def wave_head(data_size, rate=44100, channels=2):
    block = 2 * channels
    return (
        b"RIFF" + struct.pack("<I", (data_size + 36) & 0xFFFFFFFF) + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, channels, rate, rate * block, block, 16)
        + b"data" + struct.pack("<I", data_size & 0xFFFFFFFF)
    )  # fmt: skip


@pytest.mark.parametrize("trailer", [b"", b"LIST\4\0\0\0INFO"])
def test_a_wav_over_4_gib_whose_size_wrapped_has_all_its_samples(tmp_path, trailer):
    data = (1 << 32) + 60 * 44100 * 4
    path = sparse(tmp_path / "long.wav", wave_head(data), 44 + data + len(trailer), [(44 + data, trailer)])
    with open_audio(path) as stream:
        assert stream.duration_s == data // 4 / 44100
    piece, _ = load_piece(path, 44100, 1000, lambda excess: excess)
    assert len(piece) == 1000


def test_a_file_that_grew_beyond_4_gib_is_read_beyond_them(tmp_path):
    data = (1 << 32) + 4000
    mark = np.full(2, 16384, "<i2").tobytes()
    head = wave_head(data)
    path = sparse(tmp_path / "long.wav", head, 44 + data, [(44 + data - 4, mark)])
    piece, _ = load_piece(path, 44100, 10, lambda excess: excess)
    assert piece[-1] == 0.5


@pytest.mark.parametrize("size", [0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF, 0])
def test_an_open_w64_is_read_to_its_end(size):
    content = bytearray(WHOLE["w64"])
    at = content.index(b"data") + 16
    content[at : at + 8] = struct.pack("<Q", size)
    seconds, warnings, _ = read(bytes(content))
    assert (seconds, warnings) == (3.0, [])


def test_a_caf_of_unknown_size_is_read_to_its_end():
    content = bytearray(WHOLE["caf"])
    at = content.index(b"data") + 4
    content[at : at + 8] = struct.pack(">q", -1)
    assert read(bytes(content))[:2] == (3.0, [])


@pytest.mark.parametrize(("kind", "at"), [("au", 8), ("rf64", None)])
def test_other_open_sizes(kind, at):
    content = bytearray(WHOLE[kind])
    if at is None:
        at = content.index(b"ds64") + 16
        content[at : at + 8] = b"\xff" * 8
    else:
        content[at : at + 4] = b"\xff" * 4
    assert read(bytes(content))[:2] == (3.0, [])


@pytest.mark.parametrize("rate", [0, 1, 999, 5_000_000, 0xFFFFFFFF])
def test_a_rate_that_no_recording_has_is_refused(rate):
    content = bytearray(WHOLE["wav"])
    content[24:28] = struct.pack("<I", rate)
    with pytest.raises(AudioError, match=f"its sample rate is {rate} Hz"):
        read(bytes(content))


@pytest.mark.parametrize("channels", [0, 257, 65535])
def test_channels_that_no_recording_has_are_refused(channels):
    content = bytearray(WHOLE["wav"])
    content[22:24] = struct.pack("<H", channels)
    content[32:34] = bytes(2)
    with pytest.raises(AudioError, match="channels"):
        read(bytes(content))


@pytest.mark.parametrize(
    "name", ["r.au", "r.snd", "r.gsm", "r.vox", "r.raw", "r.mp3", "r.m4a", "r.wav", "r.flac"]
)
def test_a_format_is_never_guessed_for_a_text(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(Path(__file__).read_bytes())
    with pytest.raises(AudioError, match=r"not a format|no samples|damaged"):
        read(path)


def test_a_name_of_any_bytes(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path / "b") + b"\xff.wav")
    try:
        with open(path, "wb") as target:
            target.write(WHOLE["wav"][:-100])
    except OSError:
        pytest.skip("this file system has names of text only")
    seconds, warnings, _ = read(path)
    assert seconds > 2.9
    assert warnings[0].isprintable()
    assert "\\udcff.wav" in warnings[0]


def test_decoders_print_nothing(capfd):
    for content in (
        WHOLE["mp3"][:2000] + TEXT + WHOLE["mp3"][2000:],
        TEXT + WHOLE["mp3"],
        WHOLE["mov"][:-2000],
    ):
        try:
            read(content)
            load_piece(content, RATE, 100, lambda _: 7)
        except AudioError:
            pass
    assert capfd.readouterr() == ("", "")
