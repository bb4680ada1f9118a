"""A suite that opens is valid, and one that does not says which entry is at fault and what to do about it."""

import hashlib
import json
import re
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest

from fye_bench.suites import manifest
from fye_bench.suites import suite as suite_module
from fye_bench.suites.drawn import DrawnTruth
from fye_bench.suites.suite import Suite, faults, notes
from fye_rt.errors import InputError, OptionError
from tests.fye_bench.suites.suite_files import Change, content, digest, loaded, written

DRAWN = ("pairs", 0, "truth", "drawn")  # where a manifest says how a truth is drawn
PAGE = Path(__file__).resolve().parents[3] / "docs" / "development" / "suites.md"


def setter(*path: Any, value: Any) -> Change:
    return lambda found: reduce(getitem, path[:-1], found).__setitem__(path[-1], value)


def dropper(*path: Any) -> Change:
    return lambda found: reduce(getitem, path[:-1], found).__delitem__(path[-1])


def refused(folder: Path) -> str:
    with pytest.raises(InputError) as raised:
        Suite.load(folder)
    message = str(raised.value)
    assert "suite.json" in message and "\n" not in message and len(message) < 1000
    return message


def test_a_suite_has_the_entries_of_its_manifest(tmp_path: Path) -> None:
    suite = loaded(tmp_path)
    assert (suite.folder, suite.name, suite.note) == (tmp_path.resolve(), "two faces", "")
    assert [pair.name for pair in suite.pairs] == ["b--nod", "a--talk", "b--talk"]
    drawn, driving, unknown = suite.pairs
    assert drawn.truth == DrawnTruth(family="people", identity=7, placement=3)
    assert (driving.truth, driving.mode, unknown.truth, unknown.mode) == ("driving", "self", None, "cross")
    assert driving.portrait is suite.portraits["a"] and driving.motion is suite.motions["talk"]
    b = suite.portraits["b"]
    assert (b.family, b.source, b.licence, suite.motions["nod"].kind) == ("animals", "here", "CC0", "head turns")
    assert b.landmarks and b.landmarks.path == tmp_path.resolve() / "b.npz" and b.landmarks.path.is_absolute()
    assert suite.portraits["a"].landmarks is None and len(suite.files()) == 5


def test_the_digest_of_a_suite_ignores_the_formatting_of_its_manifest(tmp_path: Path) -> None:
    suite = loaded(tmp_path)
    canonical = json.dumps(content(tmp_path), sort_keys=True, separators=(",", ":"))
    assert suite.digest == hashlib.sha256(canonical.encode()).hexdigest()
    path = suite.save()
    first = path.read_bytes()
    again = Suite.load(tmp_path)
    assert again == suite and again.save().read_bytes() == first
    swapped = Suite.load(written(tmp_path, lambda found: found["pairs"].reverse()))
    assert swapped.digest != suite.digest


def test_the_first_pairs_of_a_suite_keep_its_digest(tmp_path: Path) -> None:
    suite = loaded(tmp_path)
    few = suite.first(2)
    assert few.pairs == suite.pairs[:2] and few.digest == suite.digest
    assert suite.first(99) == suite
    with pytest.raises(OptionError, match="give 1 or more"):
        suite.first(0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (setter("format", value="fye-bundle"), "fye suite init"),
        (setter("version", value=2), "format version 2 is not known"),
        (setter("version", value=True), "format version True"),
        (setter("pairs", value=[]), "give 1 to 100,000"),
        (setter("pairs", value={}), "the pairs are {}; give a list"),
        (setter("portraits", value=[]), "the portraits are []; give an object"),
        (dropper("note"), "no 'note'"),
        (dropper("portraits", "a", "licence"), "portrait 'a' has no 'licence'"),
        (setter("portraits", "a", "license", value="MIT"), "'license', which is not known"),
        (setter("portraits", "a", value="a.png"), "portrait 'a' is 'a.png'; give an object"),
        (setter("portraits", "a", "family", value=3), "family of portrait 'a' is 3"),
        (setter("portraits", "a", "family", value="all"), "other than 'all'"),
        (setter("portraits", "a", "family", value="talking"), "which is a family too"),
        (setter("portraits", "a", "source", value="\x1b[31mred"), "printable"),
        (setter("portraits", "a", "sha256", value="12"), "sha256 of portrait 'a' is '12'"),
        (setter("portraits", "../c", value={}), "the name of portrait '../c' is '../c'; use letters"),
        (lambda found: found["portraits"].update(A=found["portraits"]["a"]), "portraits 1 and 3 have one name, 'A'"),
        (setter("portraits", "b", "landmarks", value=None), "landmarks of portrait 'b' are None"),
        (setter("motions", "nod", "kind", value=""), "kind of motion 'nod'"),
        (setter("pairs", 1, "name", value="b--nod"), "pairs 1 and 2 have one name, 'b--nod'"),
        (setter("pairs", 1, "name", value="B--NOD"), "pairs 1 and 2 have one name, 'B--NOD'"),
        (setter("pairs", 1, "name", value="a/b"), "the name of pair 2 is 'a/b'; use letters"),
        (setter("pairs", 1, "name", value="x" * 101), "the name of pair 2 is"),
        (setter("pairs", 1, "name", value="a\n"), "the name of pair 2 is"),
        (
            setter("pairs", 1, "portrait", value="c"),
            "portrait of pair 2 is 'c'; the suite has no such portrait: add it",
        ),
        (setter("pairs", 1, "motion", value=["talk"]), "motion of pair 2 is ['talk']; the suite has no such"),
        (setter("pairs", 1, "mode", value="both"), "the mode of pair 2 is 'both'; give 'self' or 'cross'"),
        (setter("pairs", 1, "mode", value="cross"), "pair 'a--talk' is driven by another face"),
        (setter("pairs", 1, "motion", value="nod"), "'nod' is no video"),
        (setter("pairs", 1, "truth", value=None), "the truth of pair 2 is None; give 'driving'"),
        (setter(*DRAWN, "family", value="robots"), "of the truth of pair 1 is 'robots'; give one of people"),
        (setter(*DRAWN, "identity", value=-1), "identity of the truth of pair 1"),
        (setter(*DRAWN, "placement", value=1.5), "placement of the truth of pair 1"),
        (setter(*DRAWN, "placement", value=True), "placement of the truth of pair 1"),
        (setter(*DRAWN, "placement", value=float("nan")), "placement of the truth of pair 1 is nan"),
        (setter(*DRAWN, "placement", value=2**63), "placement of the truth of pair 1"),
        (setter(*DRAWN, "placement", value="3"), "placement of the truth of pair 1 is '3'"),
        (setter(*DRAWN, value=None), "the truth of pair 1 is None; give an object"),
        (dropper(*DRAWN, "identity"), "the truth of pair 1 has no 'identity'; add it"),
        (setter("pairs", 0, "_portrait", value="a"), "'_portrait', which is not known"),
        (setter("portraits", "a", "_name", value="b"), "'_name', which is not known"),
        (setter("portraits", "a", "path", value="b.png"), "'path', which is not known"),
    ],
)
def test_an_invalid_entry_of_a_manifest_is_named(change: Change, said: str, tmp_path: Path) -> None:
    assert said in refused(written(tmp_path, change))


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../a.png", "x/../../a.png", "", ".", "a\\b.png", "a\0.png", 3, "C:\\a"]
)
def test_a_file_outside_of_the_folder_is_refused(path: Any, tmp_path: Path) -> None:
    assert "the file of portrait 'a' is" in refused(written(tmp_path, setter("portraits", "a", "file", value=path)))


def test_a_link_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    folder, secret = tmp_path / "suite", tmp_path / "secret.png"
    folder.mkdir()
    secret.write_bytes(b"secret")
    written(folder)
    Suite.load(folder)
    for target, said in ((secret, "a link that leaves the suite's folder"), ("a.png", "a link that leaves")):
        (folder / "a.png").unlink()
        (folder / "a.png").symlink_to(target)
        assert said in refused(folder)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("b.png")
    Suite.load(folder)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("{", "is not JSON"),
        ("[1]", "does not describe a fye-suite"),
        ("\xff", "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"format": "fye-suite", "format": "fye-suite"}', "says 'format' twice"),
        ('{"portraits": {"a": 1, "a": 2}}', "says 'a' twice"),
        ('{"format": "fye-suite", "version": NaN}', "format version nan is not known"),
        ('{"version": ' + "9" * 5000 + "}", "is not JSON"),
    ],
    ids=["empty", "cut", "list", "bytes", "deep", "double", "double inside", "nan", "endless"],
)
def test_a_file_that_is_no_manifest_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "suite.json").write_bytes(text.encode("latin-1"))
    assert said in refused(tmp_path)


def test_a_folder_without_a_manifest_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    assert "make one with: fye suite init" in refused(tmp_path)


def test_a_manifest_beyond_its_limits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path)
    monkeypatch.setattr(suite_module, "MAX_PAIRS", 2)
    assert "it has 3 pairs; give 1 to 2" in refused(tmp_path)
    monkeypatch.setattr(suite_module, "MAX_PAIRS", 1)
    assert "it has 2 portraits; give 1 to 1" in refused(tmp_path)
    monkeypatch.setattr(manifest, "MAX_BYTES", 100)
    assert "the limit is 100" in refused(tmp_path)


def test_missing_changed_and_empty_files_of_a_suite_are_reported(tmp_path: Path) -> None:
    suite = loaded(tmp_path)
    calls: list[tuple[int, int]] = []
    assert list(faults(suite, lambda _, done, total: calls.append((done, total)))) == []
    assert calls == [(n, 5) for n in range(1, 6)]
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.npz").write_bytes(b"b.npz of a tesT")
    (tmp_path / "nod.npz").write_bytes(b"")
    missing, changed, empty = faults(suite)
    assert "a.png does not exist" in missing and "nod.npz is empty" in empty
    assert "b.npz is not the file that suite.json lists" in changed and "put that back" in changed
    with pytest.raises(InputError, match="does not exist"):
        suite.portraits["a"].check()


def test_a_file_listed_twice_is_a_note_and_no_fault(tmp_path: Path) -> None:
    def double(found: dict[str, Any]) -> None:
        (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
        found["portraits"]["c"] = found["portraits"]["a"] | {"file": "c.png", "sha256": digest(tmp_path / "c.png")}

    assert list(notes(loaded(tmp_path))) == []
    suite = Suite.load(written(tmp_path, double))
    assert list(faults(suite)) == []
    assert list(notes(suite)) == ["portraits a, c are the same file", "portraits in no pair: c"]


def test_the_documented_example_of_a_manifest_is_valid(tmp_path: Path) -> None:
    example = re.search(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example
    (tmp_path / "suite.json").write_text(example[1])
    suite = Suite.load(tmp_path)
    assert [pair.mode for pair in suite.pairs] == ["self", "cross"]
    assert suite.pairs[0].truth == "driving" and suite.portraits["wolf"].landmarks
    fields = {*json.loads(example[1]), *json.loads(example[1])["portraits"]["wolf"], *("kind", "mode", "truth")}
    table = PAGE.read_text().partition("| field |")[2].partition("\n\n")[0]
    assert all(f"`{field}`" in table for field in fields)
