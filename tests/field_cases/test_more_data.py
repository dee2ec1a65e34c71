"""More of the kinds of `test_data.py`: what was tried by hand and was lost without a word, or said
wrongly.
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.field_cases.test_data import BLUE, RED, encoded, line, plain, put, request_for
from tests.refusals import refused
from workbench.comparison.suite import Suite
from workbench.records.prompts import read_prompts
from workbench.training.data_sources import source_of
from workbench.training.encode.pictures import fault, opened, pictures_in

# what the user has: files, captions by picture or line
FOLDERS: dict[str, tuple[dict[str, str | bytes], dict[str, str]]] = {
    "captions in a.jpg.txt": ({"a.jpg": "", "a.jpg.txt": "one"}, {"a.jpg": "one"}),
    "a name that macOS writes in two letters": (
        {"cafe\u0301.png": "", "metadata.jsonl": line(file_name="caf\u00e9.png", text="one")},
        {"cafe\u0301.png": "one"},
    ),
    "a suffix in capitals": (
        {"a.PNG": "", "metadata.jsonl": line(file_name="a.png", text="one")},
        {"a.PNG": "one"},
    ),
    "a backslash in a name": (
        {"sub/0.png": "", "metadata.jsonl": line(file_name="sub\\0.png", text="one")},
        {"sub/0.png": "one"},
    ),
    "metadata.tsv": (
        {"a.png": "", "metadata.tsv": "file_name\ttext\na.png\tone\n"},
        {"a.png": "one"},
    ),
    "a list in metadata.jsonl": (
        {"a.png": "", "metadata.jsonl": '[\n {"file_name": "a.png", "text": "one"}\n]'},
        {"a.png": "one"},
    ),
    "a caption of 200,000 letters": (
        {"a.png": "", "metadata.csv": "file_name,text\na.png," + "x" * 200_000},
        {"a.png": "x" * 200_000},
    ),
    "lines that name no picture": (
        {"a.png": "", "metadata.jsonl": "{broken\n" + line(url="http://x/a.png", text="one")},
        {"metadata.jsonl line 1": "", "metadata.jsonl line 2": "one"},
    ),
}


@pytest.mark.parametrize("has", FOLDERS)
def test_captions_are_read(tmp_path: Path, has: str) -> None:
    files, captions = FOLDERS[has]
    put(tmp_path, files)
    found = {
        str(Path(str(file)).relative_to(tmp_path)): text for file, text in pictures_in(tmp_path)
    }
    assert found == captions


def test_a_link_to_nothing_is_counted(tmp_path: Path) -> None:
    put(tmp_path, {"b.jpg": "", "b.txt": "two", "a.txt": "one"})
    (tmp_path / "a.jpg").symlink_to(tmp_path / "gone.jpg")
    first, second = pictures_in(tmp_path)
    assert "there is no such file" in str(fault(first)) and fault(second) is None


NAMED: dict[str, tuple[dict[str, str | bytes], str, str]] = {
    "a quote that is not closed": (
        {"a.png": "", "metadata.csv": 'file_name,text\na.png,"one\nb.png,two\n'},
        "not a row of a table",
        "correct that line",
    ),
    "captions under another name": (
        {"a.png": "", "captions.json": '{"a.png": "one"}'},
        "captions.json",
        "metadata.jsonl",
    ),
    "HEIC": ({"a.heic": b"ftypheic", "a.txt": "one"}, "a.heic", "convert"),
    "a zip in the folder": ({"pictures.zip": b"PK\3\4"}, "pictures.zip", "unpack"),
}


@pytest.mark.parametrize("has", NAMED)
def test_another_layout_is_named(tmp_path: Path, has: str) -> None:
    files, found, do = NAMED[has]
    put(tmp_path, files)
    with refused(found=found, do=do):
        pictures_in(tmp_path)


FILES = {
    "x.zip": (b"PK\3\4", "a zip archive", "unpack"),
    "x.tar.gz": (b"\x1f\x8b", "compressed by gzip", "unpack"),
    "x.png": (encoded(plain()), "one picture", "folder"),
    "x.npy": (b"\x93NUMPY\0", "no known kind", "other"),
    "missing": (None, "does not exist", "check the path"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_training_data_is_named(tmp_path: Path, name: str) -> None:
    content, found, do = FILES[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with refused(found=found, do=do):
        source_of(str(tmp_path / name))


# --- tar files ------------------------------------------------------------------------------------


def tar_of(file: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(file, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file


def test_names_with_dots_in_a_tar(tmp_path: Path) -> None:
    """`1.v2.png` is a picture; `2.mask.png` beside `2.jpg` is none, as WebDataset has it."""
    members = {name: encoded(plain()) for name in ("1.v2.png", "2.jpg", "2.mask.png")}
    members |= {"1.v2.txt": b"one", "2.txt": b"two", "._2.jpg": b"x"}
    tar_of(tmp_path / "0.tar", members)
    found = {str(picture): caption for picture, caption in pictures_in(tmp_path)}
    assert found == {"0.tar/2.jpg": "two", "0.tar/1.v2.png": "one"}


def test_a_compressed_tar_is_refused_before_it_is_read(tmp_path: Path) -> None:
    shard = tar_of(tmp_path / "0.tar", {"1.png": encoded(plain()), "1.txt": b"one"}, "w:gz")
    with refused(found="compressed by gzip", do="unpack"):
        source_of(str(shard))[1].content_key(request_for(str(shard)))


def test_a_tar_without_pictures_says_what_it_has(tmp_path: Path) -> None:
    tar_of(tmp_path / "0.tar", {"1.npy": b"x", "1.txt": b"one"})
    with refused(found="0.tar has no picture (1.npy, 1.txt)"):
        pictures_in(tmp_path)


# --- colours --------------------------------------------------------------------------------------


def exchanged_profile() -> bytes:
    """sRGB with its red and blue primaries exchanged: red in it is blue."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    other_name = profile.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    data = bytearray(other_name.replace(b"sRGB", b"swap"))
    count = int.from_bytes(data[128:132], "big")
    places = {bytes(data[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, blue = places[b"rXYZ"], places[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = (
        data[blue + 4 : blue + 12],
        data[red + 4 : red + 12],
    )
    return bytes(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colours_are_those_of_the_pictures_profile(tmp_path: Path, mode: str) -> None:
    image = plain(RED).convert(mode)
    image.save(tmp_path / "a.png", icc_profile=exchanged_profile())
    found = opened(tmp_path / "a.png").getpixel((3, 3))
    assert np.abs(np.subtract(found, BLUE)).max() <= 4


@pytest.mark.parametrize("profile", [b"", b"damaged"])
def test_a_damaged_profile_changes_nothing(tmp_path: Path, profile: bytes) -> None:
    plain(RED).save(tmp_path / "a.png", icc_profile=profile)
    assert opened(tmp_path / "a.png").getpixel((3, 3)) == RED


def test_transparent_pixels_are_white_and_half_of_them_half(tmp_path: Path) -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 128))
    image.putpixel((0, 0), (0, 255, 0, 0))
    image.save(tmp_path / "a.png")
    found = opened(tmp_path / "a.png")
    assert found.getpixel((0, 0)) == (255, 255, 255) and found.getpixel((5, 5)) == (127, 127, 127)


# --- prompts --------------------------------------------------------------------------------------

PROMPTS = {
    "p.jsonl": '{"prompt": "a cat"}\n{"prompt": "two\u2028dogs"}\n',
    "p.txt": '{"caption": "a cat"}\n{"caption": "two\u2028dogs"}\n',
    "p.json": '["a cat", "two\u2028dogs"]',
    "p.csv": 'id,prompt\r\n1,a cat\r\n2,"two\u2028dogs"\r\n',
    "p.tsv": "Prompt\tCategory\na cat\tx\ntwo\u2028dogs\ty\n",
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_of_tables_and_of_json(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(PROMPTS[name], newline="")
    assert read_prompts(tmp_path / name) == ["a cat", "two\u2028dogs"]
    if name != "p.json":
        assert Suite.load(tmp_path / name).prompts == ["a cat", "two\u2028dogs"]


NO_PROMPTS = {
    "plan.yaml": ("teacher: demo\n", ".yaml file"),
    "config.json": ('{"num_layers": 3}', "line 1 has no prompt"),
    "p.csv": ("name\nx\n", "line 2 has no prompt"),
}


@pytest.mark.parametrize("name", NO_PROMPTS)
def test_a_file_that_holds_no_prompts_is_not_sampled(tmp_path: Path, name: str) -> None:
    text, found = NO_PROMPTS[name]
    (tmp_path / name).write_text(text)
    with refused(found=found):
        read_prompts(tmp_path / name)
