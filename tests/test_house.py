"""The rules of the house that no linter knows: purity beyond imports, the drawing, reasons, documents, pins."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import stream

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = ROOT / "stream"
PURE: Final = ("wire", "signals", "profiles", "detectors", "alerts", "stages")
IMPURE: Final = {
    "open": "reads a disk",
    "input": "asks a person",
    "print": "rooms do not talk",
    "hash": "differs between processes",
    "id": "differs between runs",
    "eval": "runs what it reads",
    "exec": "runs what it reads",
    "breakpoint": "waits for a person",
}
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS: Final = ROOT / "deploy" / "locks"
GUESTS: Final = {"bench", "kafka", "simulation", "faults", "scenarios", "integration", "e2e"}
"""Folders of tests that mirror no room."""


def _modules(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (PACKAGE / room).rglob("*.py"))


def _sources() -> list[Path]:
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")])


def _documents() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _impure_calls(source: str) -> list[str]:
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [
        f"line {call.lineno}: {call.func.id} {IMPURE[call.func.id]}"
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id in IMPURE
    ]


@pytest.mark.parametrize("path", _modules(*PURE), ids=_name)
def test_a_pure_room_calls_nothing_that_depends_on_more_than_its_arguments(path: Path) -> None:
    assert _impure_calls(path.read_text(encoding="utf-8")) == []


def test_the_search_for_impure_calls_finds_them() -> None:
    assert _impure_calls("def f(a):\n    return hash(a)\n") == ["line 2: hash differs between processes"]


def _drawn(drawing: str) -> Iterator[str]:
    """Paths of all files in a drawing of a tree, as `wire/codec.py`; a folder alone stands for its `__init__.py`."""
    folders: list[str] = []
    for depth, name in re.findall(r"^((?:│   |    )*)[├└]── (\S+)", drawing, flags=re.MULTILINE):
        del folders[len(depth) // 4 :]
        path = "/".join([*folders, name.rstrip("/")])
        if name.endswith("/"):
            folders.append(name.rstrip("/"))
            path += "/__init__.py"
        yield path


def test_the_drawing_of_the_house_shows_every_module_and_no_other() -> None:
    built = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")} - {"__init__.py"}

    drawn = list(_drawn(stream.__doc__ or ""))

    assert len(drawn) == len(set(drawn))
    assert built - set(drawn) == set(), "modules that the docstring of stream/__init__.py does not show"
    assert set(drawn) - built == set(), "modules that the docstring of stream/__init__.py shows but that do not exist"


def test_tests_mirror_the_house() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir()}

    folders = {path.parent.relative_to(ROOT / "tests").parts[:1] for path in (ROOT / "tests").rglob("*.py")}

    assert {folder[0] for folder in folders if folder} <= rooms | GUESTS


@pytest.mark.parametrize("path", _sources(), ids=_name)
def test_every_exception_to_a_rule_gives_its_reason(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    waivers = [line for line in lines if re.search(r"# noqa\b(?!\\b)", line) and path != Path(__file__)]

    assert [line for line in waivers if not re.search(r"# noqa: [A-Z0-9, ]+\s?[-#] \S", line)] == []


@pytest.mark.parametrize("path", _documents(), ids=_name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", text)

    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_a_decision_says_question_answer_rejected_and_what_would_change_our_mind() -> None:
    folder = ROOT / "docs" / "decisions"
    notes = sorted(set(folder.glob("*.md")) - {folder / "README.md"})
    index = (folder / "README.md").read_text(encoding="utf-8")

    assert notes
    for note in notes:
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}-[a-z0-9-]+\.md", note.name)
        said = re.findall(r"^\*\*(.+?)\*\*", note.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert said == ["Question.", "Answer.", "Rejected.", "What would change our mind."], note.name
        assert note.name in index


def test_the_changelog_tells_each_release_what_happens_to_state_topics_and_config() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.split(r"^## ", text, flags=re.MULTILINE)[1:]

    assert releases[0].split()[0] == PROJECT["project"]["version"]
    for release in releases:
        assert re.findall(r"^- (State|Topics|Config): ", release, flags=re.MULTILINE) == ["State", "Topics", "Config"]


def _pins(lock: str) -> dict[str, list[Version]]:
    """Name to pinned versions; several where markers part them."""
    pins: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([a-z0-9.-]+)==(\S+)", (LOCKS / lock).read_text(encoding="utf-8"), re.MULTILINE):
        pins.setdefault(name, []).append(Version(version))
    return pins


@pytest.mark.parametrize("lock", ["runtime.txt", "dev.txt", "uv.txt", "datasets.txt"])
def test_a_lock_pins_versions_and_hashes_and_names_no_host(lock: str) -> None:
    text = (LOCKS / lock).read_text(encoding="utf-8").replace("\\\n", "")
    requirements = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]

    assert requirements
    assert "://" not in text
    for requirement in requirements:
        assert re.match(r"[a-z0-9.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", requirement), requirement


def test_the_locks_satisfy_the_project() -> None:
    project = PROJECT["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    wanted = {
        "runtime.txt": project["dependencies"],
        "dev.txt": [*project["dependencies"], *extras, *PROJECT["dependency-groups"]["dev"]],
    }

    for lock, lines in wanted.items():
        pins = _pins(lock)
        for requirement in map(Requirement, lines):
            assert requirement.name in pins, f"{lock} misses {requirement}: make lock"
            assert all(version in requirement.specifier for version in pins[requirement.name]), requirement


def test_the_image_and_the_developers_run_the_same_versions() -> None:
    developers = _pins("dev.txt")

    assert {name: developers.get(name) for name in _pins("runtime.txt")} == _pins("runtime.txt")


def test_compose_starts_the_kafka_that_the_tests_start() -> None:
    pom = (ROOT / "tests" / "kafka" / "pom.xml").read_text(encoding="utf-8")
    version = re.search(r"<kafka.version>(.+?)<", pom)

    assert version is not None
    assert f"apache/kafka:{version[1]} " in (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
