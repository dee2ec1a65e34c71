"""Pictures and captions as people have them: each is read, or left out with its reason."""

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
from tests.tiny import SIZE, tiny_qwen_pipeline
from tests.tiny_pipelines import tiny_pipeline
from workbench import models
from workbench.models.text_limits import cut_prompts, text_limit
from workbench.records.prompts import read_prompts
from workbench.training.data_sources import CacheRequest, DataSource, source_of
from workbench.training.encode import dataset_rows, pictures
from workbench.training.encode.pictures import Pair, fault, opened, pictures_in

RED, BLUE = (255, 0, 0), (0, 0, 255)
Make = Callable[[Path], object]


def plain(colour: tuple[int, ...] = RED, mode: str = "RGB", side: int = 32) -> Image.Image:
    return Image.new(mode, (side, side), colour)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


# --- one picture ----------------------------------------------------------------------------------


def lying() -> bytes:
    """A photograph that is to be turned: its left half is red, and belongs on top."""
    image = Image.new("RGB", (64, 32), BLUE)
    image.paste(RED, (0, 0, 32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image, "JPEG", exif=exif, quality=95)


def deep() -> bytes:
    levels = np.linspace(0, 65535, 32 * 32).astype(np.uint16).reshape(32, 32)
    return encoded(Image.fromarray(levels))


def palette() -> bytes:
    image = plain(mode="P", colour=(0,))
    image.putpalette([255, 0, 255] + [0, 0, 0] * 255)
    return encoded(image, transparency=0)


def animation() -> bytes:
    return encoded(plain(), "GIF", save_all=True, append_images=[plain(BLUE)])


# what the user has: the file's bytes, its name, a pixel that it has then
READ: dict[str, tuple[Callable[[], bytes], str, tuple[int, int], tuple[int, int, int]]] = {
    "a JPEG with EXIF orientation": (lying, "a.jpg", (16, 8), RED),
    "a 16-bit PNG": (deep, "a.png", (31, 31), (255, 255, 255)),
    "RGBA that hides a colour": (
        lambda: encoded(plain((0, 255, 0, 0), "RGBA")),
        "a.png",
        (3, 3),
        (255, 255, 255),
    ),
    "a palette with transparency": (palette, "a.png", (3, 3), (255, 255, 255)),
    "CMYK": (lambda: encoded(plain((0, 0, 0, 255), "CMYK"), "JPEG"), "a.jpg", (3, 3), (0, 0, 0)),
    "an animated GIF": (animation, "a.gif", (3, 3), RED),
    "a JPEG that is called .png": (
        lambda: encoded(plain((0, 0, 0)), "JPEG"),
        "a.png",
        (3, 3),
        (0, 0, 0),
    ),
    "a PNG that is called .jpeg": (lambda: encoded(plain()), "a.jpeg", (3, 3), RED),
}


@pytest.mark.parametrize("has", READ)
def test_a_picture_is_read(tmp_path: Path, has: str) -> None:
    content, name, at, pixel = READ[has]
    (tmp_path / name).write_bytes(content())
    image = opened(tmp_path / name)
    assert image.mode == "RGB"
    difference = np.abs(np.subtract(image.getpixel(at), pixel))
    assert difference.max() <= 4  # JPEG
    assert fault((tmp_path / name, "a caption")) is None


def test_sixteen_bits_keep_all_levels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(deep())
    assert len(np.unique(np.asarray(opened(tmp_path / "a.png")))) == 256


LEFT_OUT: dict[str, tuple[bytes, str, str]] = {
    "a truncated JPEG": (lying()[:-300], "a caption", "not a readable picture"),
    "a web page called .jpg": (b"<html></html>", "a caption", "not a readable picture"),
    "an empty file": (b"", "a caption", "not a readable picture"),
    "1 x 1": (encoded(plain(side=1)), "a caption", "too small"),
    "8000 x 100": (encoded(Image.new("L", (8000, 100))), "a caption", "too long"),
    "an empty caption": (encoded(plain()), "", "no caption"),
    "a caption of blanks": (encoded(plain()), " \n", "no caption"),
}


@pytest.mark.parametrize("has", LEFT_OUT)
def test_what_cannot_be_used_is_left_out_with_its_reason(tmp_path: Path, has: str) -> None:
    content, caption, reason = LEFT_OUT[has]
    (tmp_path / "a.jpg").write_bytes(content)
    assert reason in str(fault((tmp_path / "a.jpg", caption)))


# --- captions -------------------------------------------------------------------------------------


def put(folder: Path, files: dict[str, str | bytes]) -> None:
    """Write files; a picture where the name is that of one and nothing is given."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(data or encoded(plain()))


def line(**row: object) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


# what the user has: files, captions by picture
FOLDERS: dict[str, tuple[dict[str, str | bytes], dict[str, str]]] = {
    "metadata.jsonl with a byte-order mark": (
        {"a.png": "", "metadata.jsonl": "\ufeff" + line(file_name="a.png", text="one")},
        {"a.png": "one"},
    ),
    "U+2028 in a caption": (
        {"a.png": "", "metadata.jsonl": line(file_name="a.png", text="one\u2028two")},
        {"a.png": "one\u2028two"},
    ),
    "columns image and prompt": (
        {"a.png": "", "metadata.jsonl": line(image="a.png", prompt="one")},
        {"a.png": "one"},
    ),
    "metadata.csv of a spreadsheet": (
        {"a.png": "", "metadata.csv": "\ufefffile_name;text\r\na.png;one\r\n"},
        {"a.png": "one"},
    ),
    "a list of captions": (
        {"a.png": "", "metadata.jsonl": line(file_name="a.png", text=["one", "two"])},
        {"a.png": "one"},
    ),
    "text files in nested folders": (
        {"x/y/a.png": "", "x/y/a.txt": "one\n", "b.jpg": "", "b.TXT": "two"},
        {"x/y/a.png": "one", "b.jpg": "two"},
    ),
    "one picture named twice": (
        {"a.png": "", "metadata.jsonl": 2 * line(file_name="a.png", text="one")},
        {"a.png": "one"},
    ),
    "train/ doubled": (
        {"train/a.png": "", "train/metadata.jsonl": line(file_name="train/a.png", text="one")},
        {"train/a.png": "one"},
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


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "gbk"])
def test_captions_of_another_encoding_are_named(tmp_path: Path, encoding: str) -> None:
    """They are not guessed: a file of captions is refused, one caption is left out."""
    text = {"gbk": "红色的圆"}.get(encoding, "café")
    put(tmp_path, {"a.png": "", "a.txt": text.encode(encoding)})
    [pair] = pictures_in(tmp_path)
    assert "not UTF-8" in str(fault(pair))
    put(tmp_path, {"metadata.csv": f"file_name,text\na.png,{text}\n".encode(encoding)})
    with refused(found="metadata.csv is not UTF-8", do="convert"):
        pictures_in(tmp_path)


def test_a_name_with_nul_is_one_missing_picture(tmp_path: Path) -> None:
    put(tmp_path, {"a.png": "", "metadata.jsonl": line(file_name="sub\0.png", text="one")})
    [pair] = pictures_in(tmp_path)
    assert "not a readable picture" in str(fault(pair))


def test_prompts_are_lines_that_end_with_a_line_feed(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeff#1 dad mug\r\n# a comment\r\none\u2028two\x0cthree\r\n".encode())
    assert read_prompts(file) == ["#1 dad mug", "one\u2028two\x0cthree"]


def test_a_tar_with_json_before_txt(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, data in {"1.json": b'{"w": 3}', "1.TXT": b"one", "1.png": b""}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    assert [caption for _, caption in pictures_in(tmp_path)] == ["one"]


# --- long captions --------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "limit"), [("qwenimage", 512), ("sd3", 256), ("pixart", 300)])
def test_captions_that_are_cut_are_counted(tmp_path: Path, family: str, limit: int) -> None:
    pipe = models.load_pipeline(tiny_pipeline(family, tmp_path))
    read = text_limit(pipe)
    assert read is not None and read <= limit
    assert cut_prompts(pipe, ["a red circle", "red " * 900, "two"]) == [1]


def test_they_are_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = models.load_pipeline(tiny_qwen_pipeline(tmp_path, depth=1))
    prompts = ["green " * 700, "a circle"]
    for _ in range(2):
        list(models.generate(pipe, prompts, seeds=[0, 1], steps=2, guidance=1, size=SIZE))
    assert capsys.readouterr().err.count("1 of 2 prompts have more than 512 tokens") == 1


# --- through the datasets library -----------------------------------------------------------------


def rows_of(**more: list[object]) -> Any:
    datasets = pytest.importorskip("datasets")
    images = [{"bytes": lying(), "path": None}, {"bytes": b"torn", "path": None}]
    columns = {"image": images, "text": ["one", "two"], **more}
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def parquet_table(folder: Path) -> Path:
    """An image folder whose table is metadata.parquet."""
    datasets = pytest.importorskip("datasets")
    put(folder, {"a.jpg": lying(), "b.jpg": b"torn"})
    table = {"file_name": ["a.jpg", "b.jpg"], "text": ["one", "two"]}
    datasets.Dataset.from_dict(table).to_parquet(folder / "metadata.parquet")
    return folder


def parquet_file(folder: Path) -> Path:
    rows_of(id=[7, 8]).to_parquet(folder / "data.parquet")
    return folder / "data.parquet"


def parquet_of_the_hub(folder: Path) -> Path:
    (folder / "data").mkdir()
    for split in ("train", "test"):
        rows_of().to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    return folder


def raw_bytes(folder: Path) -> Path:
    """Columns of a WebDataset that was converted: bytes without a type of their own."""
    datasets = pytest.importorskip("datasets")
    table = {"jpg": [lying(), b"torn"], "txt": ["one", "two"]}
    datasets.Dataset.from_dict(table).to_parquet(folder / "data.parquet")
    return folder / "data.parquet"


def saved(folder: Path) -> Path:
    rows_of().save_to_disk(folder / "saved")
    return folder / "saved"


def first_of_a_stream(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    stream = datasets.load_dataset("parquet", data_files=str(parquet_file(folder)), streaming=True)
    dataset_rows.keep_first(stream["train"], 2, folder / "cache" / "rows", "x")
    return folder / "cache" / "rows"


TABLES = {
    "one parquet file": parquet_file,
    "an image folder with metadata.parquet": parquet_table,
    "a data set of the Hub, downloaded": parquet_of_the_hub,
    "parquet with bytes under jpg and txt": raw_bytes,
    "a folder of save_to_disk": saved,
    "the first rows of a stream": first_of_a_stream,
}


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's cache is in the test's folder; no network."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def request_for(data: str) -> CacheRequest:
    return CacheRequest(data, "tiny", SIZE, 2, 1.0)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("has", TABLES)
def test_rows_are_pictures_with_captions(tmp_path: Path, has: str) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    data = str(TABLES[has](folder))
    name, source = source_of(data)
    assert name == "dataset" and isinstance(source, DataSource)
    assert source.content_key(request_for(data))
    pairs: list[Pair] = dataset_rows.pairs_of(data, tmp_path / "cache")
    assert [caption for _, caption in pairs] == ["one", "two"]
    (upright, _), torn = pairs
    assert opened(upright).size == (32, 64)  # as of a folder: by its EXIF orientation
    assert "not a readable picture" in str(fault(torn))
    assert len({pictures.identity(picture) for picture, _ in pairs}) == 2


def other_columns(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"id": [1], "label": [2]}).to_parquet(folder / "a.parquet")
    return folder / "a.parquet"


def torn_parquet(folder: Path) -> Path:
    (folder / "a.parquet").write_bytes(b"PAR1 and no more")
    return folder / "a.parquet"


NO_ROWS = {
    "other columns": (other_columns, "id, label", "image"),
    "torn parquet": (torn_parquet, "a.parquet cannot be read", "parquet"),
}


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("has", NO_ROWS)
def test_what_the_library_cannot_give_is_one_line(tmp_path: Path, has: str) -> None:
    make, found, expected = NO_ROWS[has]
    data = str(make(tmp_path))
    with refused(found=found, expected=expected):
        source_of(data)[1].content_key(request_for(data))


@pytest.mark.parametrize("data", ["hub:name", "hub:a/b/c", "hub:a/b[5:]", "hub:"])
def test_a_name_that_is_none_of_the_hubs(data: str) -> None:
    with refused(found=data, expected="hub:OWNER/NAME"):
        dataset_rows.hub_name(data)


def test_parts_of_a_hub_name() -> None:
    parts = dataset_rows.hub_name("hub:a/b@v1.0:train[:50]").groupdict()
    assert parts == {"name": "a/b", "revision": "v1.0", "split": "train", "first": "50"}
