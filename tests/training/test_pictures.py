"""Pictures and captions as people have them: each is read rightly, or skipped with its reason."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from workbench.training.data_sources import source_of
from workbench.training.encode import pictures
from workbench.training.encode.pictures import UNREADABLE, fault, opened, pictures_in

RED, BLUE = (255, 0, 0), (0, 0, 255)
FORMATS = ("png", "jpeg", "webp", "bmp", "tiff", "gif")


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def pixel(image: Image.Image, x: int, y: int) -> tuple[int, ...]:
    value = image.getpixel((x, y))
    assert isinstance(value, tuple)
    return value


def half_red() -> Image.Image:
    """32 x 16: the left half red, the right half blue."""
    image = Image.new("RGB", (32, 16), BLUE)
    image.paste(RED, (0, 0, 16, 16))
    return image


# --- one picture ----------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_upright_in_the_bucket_of_its_upright_shape(
    tmp_path: Path, orientation: int
) -> None:
    """What a camera stores, by the EXIF tag, is undone."""
    undone = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    stored = half_red() if undone is None else half_red().transpose(undone)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(stored, tmp_path / "a.png", exif=exif)
    assert np.array_equal(np.asarray(opened(path)), np.asarray(half_red()))
    buckets = pictures.sizes(64, 16)
    assert pictures.bucket_of(path, buckets, 64) == pictures.bucket_of(half_red(), buckets, 64)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_become_all_levels_of_eight(tmp_path: Path, suffix: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = saved(Image.fromarray(values), tmp_path / f"a.{suffix}")
    levels = np.asarray(opened(path))[..., 0]
    assert len(np.unique(levels)) == 256
    assert np.array_equal(levels, np.round(values / 257).astype(np.uint8))


@pytest.mark.parametrize(("top", "mode"), [(1.0, "F"), (255.0, "F"), (255, "I"), (65535, "I")])
def test_floats_and_wide_integers_span_black_to_white(top: float, mode: str) -> None:
    dtype = np.float32 if mode == "F" else np.int32
    image = Image.fromarray(np.array([[0, top / 2, top]] * 3).astype(dtype))
    assert image.mode == mode
    levels = np.asarray(opened(image))[0, :, 0]
    assert levels[0] == 0 and levels[2] == 255 and 126 <= levels[1] <= 128


def transparent(mode: str) -> Image.Image:
    """A picture whose left half is transparent and hides red, its right half blue."""
    image = half_red().convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat([[0] * 16 + [255] * 16], 16, 0).astype(np.uint8)))
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa"])
def test_transparent_pixels_are_white(mode: str) -> None:
    assert pixel(opened(transparent(mode)), 2, 2) == (255, 255, 255)
    assert pixel(opened(transparent(mode)), 30, 2) != (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_transparent_pixels_of_files_are_white(tmp_path: Path, suffix: str) -> None:
    image = transparent("RGBA")
    if suffix == "gif":
        image = half_red().quantize(2)
        image.info["transparency"] = image.getpixel((0, 0))
    path = saved(image, tmp_path / f"a.{suffix}")
    assert pixel(opened(path), 2, 2) == (255, 255, 255)
    assert pixel(opened(path), 30, 2)[2] > 200


def test_a_colour_that_stands_for_transparency_is_white(tmp_path: Path) -> None:
    path = saved(half_red(), tmp_path / "a.png", transparency=RED)
    assert pixel(opened(path), 2, 2) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "HSV"])
def test_other_modes_are_the_same_picture(mode: str) -> None:
    expected = half_red().convert("L").convert("RGB") if mode in "L1" else half_red()
    difference = np.asarray(opened(half_red().convert(mode))).astype(int) - np.asarray(expected)
    assert abs(difference).max() <= (255 if mode == "1" else 3)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    red, _, blue = pixel(opened(path), 8, 8)
    assert red > 250 and blue < 5


@pytest.mark.parametrize("size", [(1, 1), (7, 64), (8000, 100)])
def test_sizes_that_cannot_be_learned_from_are_skipped(size: tuple[int, int]) -> None:
    reason = fault((Image.new("RGB", size), "a caption"))
    assert reason is not None and f"{size[0]} x {size[1]}" in reason


@pytest.mark.parametrize("kind", FORMATS)
def test_a_truncated_file_never_ends_the_run(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(buffer, kind)
    whole = buffer.getvalue()
    path = tmp_path / f"a.{kind}"
    path.write_bytes(whole)
    assert fault((path, "noise")) is None
    for length in range(0, len(whole) // 2, max(1, len(whole) // 80)):
        path.write_bytes(whole[:length])
        assert "not a readable picture" in str(fault((path, "noise"))), length
        assert pictures.bucket_of(path, [(16, 16)], 16) == (16, 16)


def test_what_pillow_raises_is_a_reason() -> None:
    assert issubclass(Image.DecompressionBombError, UNREADABLE)


# --- folders --------------------------------------------------------------------------------------

Row = dict[str, Any]


def folder_of(path: Path, *names: str) -> Path:
    """A folder with pictures of these names."""
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        half_red().save(path / name)
    return path


def json_lines(path: Path, *rows: Row, before: str = "", end: str = "\n") -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes((before + end.join(lines) + end).encode())


def captions(folder: Path) -> dict[str, str]:
    """Picture, relative to the folder, -> caption."""
    out = {}
    for picture, caption in pictures_in(folder):
        assert isinstance(picture, Path) and picture.is_file(), picture
        out[picture.relative_to(folder).as_posix()] = caption
    return out


@pytest.mark.parametrize("before", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["\u2028", "\u0085", "\x0b", "\x0c"])
def test_a_line_feed_alone_ends_a_line(tmp_path: Path, before: str, end: str, mark: str) -> None:
    folder_of(tmp_path, "a.png", "b.png")
    rows = [{"file_name": "a.png", "text": f"one{mark}two"}, {"file_name": "b.png", "text": "b"}]
    if mark in "\x0b\x0c":  # JSON escapes them
        rows[0]["text"] = "one two"
    json_lines(tmp_path / "metadata.jsonl", *rows, before=before, end=end)
    assert captions(tmp_path) == {"a.png": rows[0]["text"], "b.png": "b"}


@pytest.mark.parametrize("file_key", ["file_name", "image", "file", "path"])
@pytest.mark.parametrize("text_key", ["text", "caption", "prompt"])
def test_columns_go_by_many_names(tmp_path: Path, file_key: str, text_key: str) -> None:
    folder_of(tmp_path, "a.png")
    json_lines(tmp_path / "metadata.jsonl", {file_key: "a.png", text_key: "one"})
    assert captions(tmp_path) == {"a.png": "one"}


def test_of_several_captions_the_first_is_taken(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png")
    json_lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "text": ["one", "two"]})
    assert captions(tmp_path) == {"a.png": "one"}


CSV = {
    "comma": 'file_name,text\na.png,"one, two"\nb.png,"line\nbreak"\n',
    "semicolon": 'file_name;text\na.png;one, two\nb.png;"line\nbreak"\n',
    "tab": 'file_name\ttext\na.png\tone, two\nb.png\t"line\nbreak"\n',
    "byte-order mark": '\ufefffile_name,text\r\na.png,"one, two"\r\nb.png,"line\nbreak"\r\n',
}


@pytest.mark.parametrize("kind", CSV)
def test_a_table(tmp_path: Path, kind: str) -> None:
    folder_of(tmp_path, "a.png", "b.png")
    (tmp_path / "metadata.csv").write_bytes(CSV[kind].encode())
    assert captions(tmp_path) == {"a.png": "one, two", "b.png": "line\nbreak"}
    json_lines(tmp_path / "metadata.jsonl", {"file_name": "a.png", "text": "of the other"})
    assert captions(tmp_path) == {"a.png": "of the other", "b.png": "line\nbreak"}


def test_a_table_of_other_columns_names_them(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text("id,label\n1,cat\n")
    with refused(found="id, label", expected="file_name and text"):
        pictures_in(tmp_path)


@pytest.mark.parametrize("name", ["train/a.png", "a.png", "train\\a.png", "data/train/a.png"])
def test_paths_relative_to_another_folder_are_followed(tmp_path: Path, name: str) -> None:
    folder = folder_of(tmp_path / "data", "train/a.png")
    json_lines(folder / "train" / "metadata.jsonl", {"file_name": name, "text": "one"})
    assert captions(folder) == {"train/a.png": "one"}


def test_sub_folders_with_a_metadata_file_each(tmp_path: Path) -> None:
    folder_of(tmp_path, "x/1.png", "y/1.png", ".hidden/1.png")
    for part in ("x", "y", ".hidden"):
        json_lines(tmp_path / part / "metadata.jsonl", {"file_name": "1.png", "text": part})
    assert captions(tmp_path) == {"x/1.png": "x", "y/1.png": "y"}


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        ("txt", b"a circle\n"),
        ("TXT", b"a circle"),
        ("caption", b"\xef\xbb\xbfa circle\r\n"),
        ("json", b'{"width": 32, "caption": "a circle"}'),
    ],
)
def test_captions_beside_the_pictures(tmp_path: Path, suffix: str, content: bytes) -> None:
    folder_of(tmp_path, "10_dog/a.PNG", "10_dog/b.png")
    (tmp_path / "10_dog" / f"a.{suffix}").write_bytes(content)
    assert captions(tmp_path) == {"10_dog/a.PNG": "a circle", "10_dog/b.png": ""}


LAYOUTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no captions": (lambda path: folder_of(path, "a.png"), "1 pictures (a.png) and no captions"),
    "nothing": (lambda path: path / "none", "without a picture"),
    "empty metadata": (lambda path: (path / "metadata.jsonl").touch(), "metadata.jsonl"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_another_layout_is_named_beside_the_ones_that_are_read(tmp_path: Path, layout: str) -> None:
    make, found = LAYOUTS[layout]
    make(tmp_path)
    with refused(found=found, expected="metadata.csv"):
        pictures_in(tmp_path)


# --- tar files and other sources ------------------------------------------------------------------


def test_captions_in_a_tar_are_those_that_say_something(tmp_path: Path) -> None:
    members = {
        "1.json": b'{"width": 3}',
        "1.txt": b"one",
        "1.png": b"",
        "2.TXT": b"two",
        "2.png": b"",
        "3.json": b'{"text": ["three", "drei"]}',
        "3.png": b"",
    }
    (tmp_path / "train").mkdir()
    with tarfile.open(tmp_path / "train" / "0.tar", "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert [caption for _, caption in pictures_in(tmp_path)] == ["one", "two", "three"]


@pytest.mark.parametrize("content", [b"PAR1rest", b"\x1f\x8brest", b"PK\x03\x04", b"\x89PNG\0\0"])
def test_an_archive_is_no_file_of_prompts(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(content)
    with refused(found=str(file), expected="tar files"):
        source_of(str(file))
