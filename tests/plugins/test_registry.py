"""Registries: rows from outside, lazy rows, and what is said where a row cannot be had."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from workbench.plugins import KINDS, Lazy, load_plugin, register, registry, unregister
from workbench.records import BadInput
from workbench.specs import InfoSpec, Verb

OPTIONAL = {"ocr": "rapidocr"}  # rows whose package comes with an extra


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(BadInput) as error:
        registry("verb")["prune"]
    assert error.value.found == "verb 'prune'"
    assert "distill" in error.value.expected
    assert "--plugin" in error.value.do


def test_an_unknown_name_of_a_known_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(registry("verb").elsewhere, "fly", "pip install wings")
    with pytest.raises(BadInput) as error:
        registry("verb")["fly"]
    assert error.value.do == "pip install wings"


def test_a_lazy_row_whose_package_is_missing_says_how_to_install_it():
    register("verb", "fly", Lazy("no_such_package.verbs:FLY", install="pip install wings"))
    try:
        assert "fly" in registry("verb").names(), "listing imports nothing"
        with pytest.raises(BadInput) as error:
            registry("verb")["fly"]
        assert "no_such_package" in error.value.found
        assert error.value.do == "pip install wings"
        assert "fly" not in dict(registry("verb").items()), "a list goes on without it"
    finally:
        unregister("verb", "fly")


def test_a_row_of_the_wrong_type_is_refused():
    register("verb", "look", "a text")
    try:
        with pytest.raises(BadInput) as error:
            registry("verb")["look"]
        assert error.value.expected == "workbench.specs.table.Verb"
    finally:
        unregister("verb", "look")


def test_a_registered_row_replaces_a_built_in_one_and_can_be_taken_back():
    builtin = registry("verb")["info"]
    mine = Verb(InfoSpec, "mine:info")
    register("verb", "info", mine)
    try:
        assert registry("verb")["info"] is mine
    finally:
        unregister("verb", "info")
    assert registry("verb")["info"] is builtin


def test_an_unknown_kind_and_an_empty_name_are_refused():
    with pytest.raises(BadInput) as error:
        register("colour", "red", 1)
    assert "rule" in error.value.expected
    with pytest.raises(BadInput):
        register("rule", " ", 1)


def test_a_plugin_file_runs_once(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import workbench\n"
        "from workbench.specs import InfoSpec, Verb\n"
        f"open({str(tmp_path / 'log')!r}, 'a').write('x')\n"
        "workbench.register('verb', 'peek', Verb(InfoSpec, 'mine:peek'))\n"
    )
    try:
        load_plugin(file)
        load_plugin(file)
        assert "peek" in registry("verb")
        assert (tmp_path / "log").read_text() == "x"
    finally:
        unregister("verb", "peek")


@pytest.mark.parametrize("text", ["import no_such_module_at_all", "1 / 0", "def (:"])
def test_a_plugin_file_that_fails_is_one_line(tmp_path: Path, text: str):
    file = tmp_path / "broken.py"
    file.write_text(text)
    with pytest.raises(BadInput) as error:
        load_plugin(file)
    assert str(file) in error.value.found
    with pytest.raises(BadInput):
        load_plugin(tmp_path / "absent.py")


def test_an_entry_point_of_a_package_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from workbench.plugins.registry import entry_points

    (tmp_path / "wings.py").write_text(
        "from workbench.specs import InfoSpec, Verb\nFLY = Verb(InfoSpec, 'wings:fly')\n"
    )
    info = tmp_path / "wings-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: wings\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[workbench.verbs]\nfly = wings:FLY\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_points.cache_clear()
    try:
        assert registry("verb")["fly"].run == "wings:fly"
    finally:
        entry_points.cache_clear()


@pytest.mark.parametrize("kind", KINDS)
def test_the_built_in_rows_of_every_kind_have_the_right_type(kind: str):
    table = registry(kind)
    assert len(table) > 0
    for name in table.names():
        if name in OPTIONAL and find_spec(OPTIONAL[name]) is None:
            continue
        table[name]
