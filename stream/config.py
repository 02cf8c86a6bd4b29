"""The key rack: one Config made of every room's Settings, loaded, merged and validated before anything starts.

Flags over `DRIFT_SECTION__KEY` over the file over defaults. A string may hold `${file:/path}` and `${env:NAME}`, which
are read here and never shown. Whatever is wrong is told at once, every problem in a sentence that names where it
stands, the key, the value and what is expected (`contracts.md` 14, 15).
"""

import difflib
import json
import math
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeAlias, Union, get_args, get_origin

from msgspec import Struct
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from stream.alerts import policy
from stream.alerts.retrain import Settings as Retrain
from stream.detectors import ENABLED, river
from stream.detectors.adwin import Settings as Adwin
from stream.detectors.budget import Settings as Budget
from stream.detectors.challenger import Settings as Challenger
from stream.detectors.histogram import Settings as Histogram
from stream.detectors.mean import Settings as Mean
from stream.detectors.page_hinkley import Settings as PageHinkley
from stream.profiles.learning import Settings as Learn
from stream.profiles.seasons import Settings as Seasonality
from stream.profiles.windows import Settings as Windows
from stream.signals import outcomes
from stream.signals.outliers import Settings as Outliers
from stream.stages import detect, join
from stream.wire.canonical import canonical_json
from stream.wire.inbound import Limits
from stream.wire.record import Role
from stream.worker import settings as worker
from stream.worker.ends import EXIT_CONFIGURATION, Stopped

DEFAULT_FILE: Final = Path("drift.toml")
ENVIRONMENT: Final = "DRIFT_"

Tree: TypeAlias = dict[str, Any]
KeyPath: TypeAlias = tuple[str | int, ...]

_SECRET: Final = re.compile(r"\$\{(file|env):([^}]*)\}")
_SECRET_NAME: Final = re.compile(r"passw|secret|token|credential|\.key$|\.pem$|sasl\.jaas", re.IGNORECASE)
_TABLE: Final = re.compile(r"\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEYS: Final = re.compile(r'(?:^\s*|[{,]\s*)"?([\w.-]+)"?\s*=')
_SHOWN_CHARACTERS_MAX: Final = 80
_HIDDEN: Final = "***"

_NOT_IN_RESULTS: Final = (
    ("kafka",),
    ("http",),
    ("log",),
    ("metrics",),
    ("service", "snapshot_interval"),
    ("topics", "alerts"),
    ("topics", "prefix"),
    ("windows", "idle_after"),
    ("limits", "dead_letter_ratio"),
)
"""Settings that decide when something is said and where, never what. All others, new ones too, are part of `config_id`.
`idle_after` is here because a tick is a fact in the log: whoever reads the log again reads the same ticks."""


class Invalid(Stopped):
    """The configuration cannot be used; `problems` are sentences for people."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(EXIT_CONFIGURATION, "configuration", "\n".join(problems))
        self.problems = list(problems)


class RiverTable(BaseModel, frozen=True, extra="forbid"):
    """What may be chosen of a detector of river."""

    seed: int = Field(default=1, ge=0)
    """For those that draw: without a seed a replay would differ."""
    parameters: dict[str, float | int | str | bool] = {}
    """Passed to its constructor."""

    def of(self, name: str) -> river.Settings:
        """The settings of the class `name`."""
        return river.Settings(name=name, seed=self.seed, parameters=self.parameters)


class Detectors(BaseModel, frozen=True, extra="forbid"):
    """Section `[detectors]`: which are at work, and a table per detector."""

    enabled: list[str] = Field(default=list(ENABLED), min_length=1)
    """Any of our four, and of river's by name: "river:KSWIN"."""
    histogram: Histogram = Histogram()
    mean: Mean = Mean()
    adwin: Adwin = Adwin()
    page_hinkley: PageHinkley = PageHinkley()
    river: dict[str, RiverTable] = {}
    """By class: `[detectors.river.KSWIN]`."""

    @field_validator("enabled")
    @classmethod
    def _detectors_are_known(cls, names: list[str]) -> list[str]:
        known = [*ENABLED, *(f"{river.PREFIX}{name}" for name in sorted(river.NAMES))]
        for name in names:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise ValueError(f"no detector is called {name!r}; {hint}known: {', '.join(known)}")
            if names.count(name) > 1:
                raise ValueError(f"{name!r} is listed twice")
        return names

    @model_validator(mode="after")
    def _river_detectors_can_be_made(self) -> "Detectors":
        for name, table in self.river.items():
            if name not in river.NAMES:
                raise ValueError(f"river has no detector {name!r}; known: {', '.join(sorted(river.NAMES))}")
            try:
                river.start(0, table.of(name))
            except (TypeError, ValueError) as error:
                raise ValueError(f"river.{name} cannot be made so: {error}") from None
        return self


class Feature(BaseModel, frozen=True, extra="forbid"):
    """What the owner of a model says about one feature."""

    type: Literal["numeric", "categorical", "boolean"] | None = None
    """By default what most of its values are."""
    watch: bool = True
    """False: left out, such as an id that is new in every row."""
    importance: float = Field(default=1.0, ge=0, le=100)
    """How much a change of it matters, against the others: part of the severity of its alerts."""


class Model(outcomes.ModelSettings, frozen=True, extra="forbid"):
    """One entry of `[[models]]`."""

    id: str = Field(min_length=1, max_length=128)
    segments: list[str] = Field(default=[])
    """Tag keys whose values are watched each on its own."""
    features: dict[str, Feature] = Field(default={})
    alerts: policy.ModelSettings = policy.ModelSettings()


class Config(BaseModel, frozen=True, extra="forbid"):
    """All settings of a process. Unknown keys are errors."""

    service: worker.Service = worker.Service()
    topics: worker.Topics = worker.Topics()
    windows: Windows = Windows()
    budget: Budget = Budget()
    detectors: Detectors = Detectors()
    learn: Learn = Learn()
    seasonality: Seasonality = Seasonality()
    outliers: Outliers = Outliers()
    limits: Limits = Limits()
    feedback: join.Feedback = join.Feedback()
    alerts: policy.Settings = policy.Settings()
    retrain: Retrain = Retrain()
    challenger: Challenger = Challenger()
    http: worker.Http = worker.Http()
    log: worker.Log = worker.Log()
    metrics: worker.Metrics = worker.Metrics()
    kafka: worker.Kafka = worker.Kafka()
    models: list[Model] = []

    @field_validator("models")
    @classmethod
    def _models_are_listed_once(cls, models: list[Model]) -> list[Model]:
        names = [model.id for model in models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            message = f"{', '.join(map(repr, twice))} is listed twice; merge the entries into one"
            raise ValueError(message)
        return models

    @model_validator(mode="after")
    def _no_topic_has_two_roles(self) -> "Config":
        outputs = get_args(Role)
        names = [*self.topics.predictions, *self.topics.feedback, *(self.topics.of(role) for role in outputs)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            message = f"topics: {', '.join(map(repr, twice))} has two roles; give each its own topic"
            raise ValueError(message)
        return self


class Origin(Struct, frozen=True):
    """Where a value comes from."""

    name: str
    """As people know it: `drift.toml`, `DRIFT_WINDOWS__SIZE`, `-X`."""
    line: int | None = None


class Loaded(Struct, frozen=True):
    """A valid configuration, and where its values come from."""

    config: Config
    origins: dict[KeyPath, Origin]
    """Of every value that is not a default."""
    secret: frozenset[KeyPath]
    """Values that are never shown."""

    @property
    def config_id(self) -> str:
        """Names everything that can change a result."""
        return config_id(self.config)


def find(given: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: the one given, else `DRIFT_CONFIG`, else `./drift.toml` if there is one."""
    if given is not None:
        return given
    if named := environ.get("DRIFT_CONFIG"):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def load(file: Path | None, environ: Mapping[str, str], properties: Sequence[str] = ()) -> Loaded:
    """Read, merge and validate.

    `file` None: defaults and environment only. `properties` are `-X key=value` texts for librdkafka. Raises `Invalid`
    with all problems found.
    """
    merge = _Merge()
    if file is not None:
        merge.add_file(file)
    merge.add_environment(environ)
    merge.add_properties(properties)
    merge.open_secrets(environ)
    merge.check_numbers()
    if merge.problems:
        raise Invalid(merge.problems)
    try:
        config = Config.model_validate(merge.tree)
    except ValidationError as error:
        raise Invalid([_sentence(merge, details) for details in error.errors()]) from None
    return Loaded(config, merge.origins, frozenset(merge.secret))


def config_id(config: Config) -> str:
    """16 hex digits of SHA-256 over every setting that can change a result, and the versions of what computes it."""
    settings = config.model_dump(mode="json")
    for path in _NOT_IN_RESULTS:
        table = settings
        for part in path[:-1]:
            table = table[part]
        del table[path[-1]]
    content = {"settings": settings, "state": [detect.STATE_VERSION, join.STATE_VERSION], "river": version("river")}
    return sha256(canonical_json(content)).hexdigest()[:16]


def worker_settings(config: Config) -> worker.Settings:
    """The part the worker takes."""
    return worker.Settings(
        service=config.service,
        kafka=config.kafka,
        topics=config.topics,
        http=config.http,
        log=config.log,
        metrics=config.metrics,
        lateness_ms=config.windows.lateness,
        idle_after_ms=config.windows.idle_after,
        horizon_ms=config.feedback.horizon,
        max_future_ms=config.windows.max_future,
        dead_letter_ratio=config.limits.dead_letter_ratio,
    )


def rows(loaded: Loaded) -> Iterator[tuple[str, Any, str]]:
    """Every setting in order: dotted key, value as it would be written in the file (secrets hidden), and its origin."""
    yield from _rows(loaded, loaded.config.model_dump(mode="json"), ())


def _rows(loaded: Loaded, value: Any, path: KeyPath) -> Iterator[tuple[str, Any, str]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _rows(loaded, inner, (*path, key))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for index, inner in enumerate(value):
            yield from _rows(loaded, inner, (*path, index))
    else:
        yield written(path), _hidden(value, path, loaded.secret), _named(_origin(loaded.origins, path))


def written(path: KeyPath) -> str:
    """A path as people write it: `models[0].features.income.type`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


class _Merge:
    """The layers, one upon the other, with what is known of each value."""

    def __init__(self) -> None:
        self.tree: Tree = {}
        self.origins: dict[KeyPath, Origin] = {}
        self.secret: set[KeyPath] = set()
        self.problems: list[str] = []
        self.file: Path | None = None

    def add_file(self, file: Path) -> None:
        """The lowest layer."""
        self.file = file
        try:
            text = file.read_text(encoding="utf-8")
            tree = tomllib.loads(text)
        except FileNotFoundError:
            self.problems.append(f"{file}: no such file; name another one with -c or DRIFT_CONFIG")
        except (OSError, UnicodeDecodeError) as error:
            self.problems.append(f"{file}: cannot be read ({_reason(error)})")
        except tomllib.TOMLDecodeError as error:
            self.problems.append(f"{file}: not valid TOML: {error}")
        else:
            lines = text.splitlines()
            self._add(tree, lambda path: Origin(str(file), _line(lines, path)))

    def add_environment(self, environ: Mapping[str, str]) -> None:
        """`DRIFT_SECTION__KEY`; a section that is a list, such as models, by its name alone.

        Other names that start with DRIFT_ are nobody's business: Kubernetes sets DRIFT_SERVICE_HOST for a service that
        is called drift.
        """
        for name, text in sorted(environ.items()):
            path = tuple(name.removeprefix(ENVIRONMENT).lower().split("__"))
            if not name.startswith(ENVIRONMENT) or (len(path) == 1 and path[0] not in Config.model_fields):
                continue
            if not all(path):
                self.problems.append(f"{name}: not a setting; expected DRIFT_SECTION__KEY, such as DRIFT_WINDOWS__SIZE")
                continue
            value: Any = text
            if _is_table_or_list(path):
                try:
                    value = json.loads(text)
                except ValueError:
                    expected = f"expected JSON, since {written(path)} is a list or table"
                    self.problems.append(f"{name} = {_shown(text)}: {expected}")
                    continue
            for part in reversed(path):
                value = {part: value}
            self._add(value, lambda _, name=name: Origin(name))

    def add_properties(self, properties: Sequence[str]) -> None:
        """`-X key=value`."""
        for text in properties:
            key, equals, value = text.partition("=")
            if not equals or not key.strip():
                self.problems.append(f"-X {_shown(text)}: expected key=value, such as -X security.protocol=SSL")
                continue
            self._add({"kafka": {"properties": {key.strip(): value}}}, lambda _: Origin("-X"))

    def open_secrets(self, environ: Mapping[str, str]) -> None:
        """Replace `${file:…}` and `${env:…}`."""
        self.tree = self._opened(self.tree, (), environ)

    def check_numbers(self) -> None:
        """TOML knows inf and nan; no setting does."""
        for path, value in _leaves(self.tree, ()):
            if isinstance(value, float) and not math.isfinite(value):
                self.problems.append(f"{self.place(path)}{written(path)} = {value}: expected a finite number")

    def place(self, path: KeyPath) -> str:
        """Where a key stands, as the beginning of a sentence."""
        origin = _origin(self.origins, path)
        return f"{_named(origin)}: " if origin else f"{self.file}: " if self.file else ""

    def _add(self, layer: Tree, origin: Any) -> None:
        kafka = layer.get("kafka")
        if isinstance(kafka, dict) and isinstance(kafka.get("properties"), dict):
            layer = layer | {"kafka": kafka | {"properties": worker.flattened(kafka["properties"])}}
        for path, _ in _leaves(layer, ()):
            self.origins[path] = origin(path)
        self.tree = _over(self.tree, layer)

    def _opened(self, value: Any, path: KeyPath, environ: Mapping[str, str]) -> Any:
        if isinstance(value, dict):
            return {key: self._opened(inner, (*path, key), environ) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._opened(inner, (*path, index), environ) for index, inner in enumerate(value)]
        if not isinstance(value, str) or not _SECRET.search(value):
            return value
        self.secret.add(path)
        return _SECRET.sub(lambda found: self._secret(found, path, environ), value)

    def _secret(self, found: re.Match[str], path: KeyPath, environ: Mapping[str, str]) -> str:
        kind, name = found[1], found[2]
        try:
            if kind == "env":
                return environ[name]
            return Path(name).read_text(encoding="utf-8").rstrip("\r\n")
        except KeyError:
            why = "the variable is not set"
        except (OSError, ValueError) as error:
            why = _reason(error)
        self.problems.append(f"{self.place(path)}{written(path)} = {found[0]}: {why}")
        return ""


def _over(below: Tree, above: Tree) -> Tree:
    """Tables are merged key by key; everything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _leaves(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, index))
    else:
        yield path, value


def _origin(origins: Mapping[KeyPath, Origin], path: KeyPath) -> Origin | None:
    """Of the value itself, else of what it lies in, else of what lies in it."""
    for length in range(len(path), 0, -1):
        if (found := origins.get(path[:length])) is not None:
            return found
    return next((found for known, found in origins.items() if known[: len(path)] == path), None)


def _named(origin: Origin | None) -> str:
    if origin is None:
        return "default"
    return origin.name if origin.line is None else f"{origin.name}:{origin.line}"


def _line(lines: Sequence[str], path: KeyPath) -> int | None:
    """The line a key stands on, where exactly one line can be it; None is better than a wrong one."""
    wanted = ".".join(part for part in path if isinstance(part, str))
    found = [number for number, first, inner in _assignments(lines) if _sets(wanted, first, inner)]
    return found[0] if len(found) == 1 else None


def _assignments(lines: Sequence[str]) -> Iterator[tuple[int, str, list[str]]]:
    """Per line that sets a key: its number, the whole dotted key, and the keys of the inline table behind it."""
    table = ""
    for number, line in enumerate(lines, 1):
        if header := _TABLE.fullmatch(line.strip()):
            table = header[1].replace('"', "")
        elif keys := _KEYS.findall(line):
            yield number, f"{table}.{keys[0]}" if table else keys[0], keys[1:]


def _sets(wanted: str, first: str, inner: Sequence[str]) -> bool:
    if first == wanted:
        return True
    return wanted.startswith(f"{first}.") and (not inner or wanted.rpartition(".")[2] in inner)


def _sentence(merge: _Merge, details: ErrorDetails) -> str:
    path: KeyPath = tuple(part for part in details["loc"] if part != "[key]")
    expectation, value = _expectation(details), details["input"]
    if not path:  # about the whole: the sentence names its keys itself
        return f"{merge.file or 'configuration'}: {expectation}"
    if details["type"] == "missing":
        return f"{merge.place(path)}{written(path)}: {expectation}"
    hidden = _hidden(value, path, merge.secret)
    shown = hidden if hidden is _HIDDEN else _shown(hidden)
    return f"{merge.place(path)}{written(path)} = {shown}: {expectation}"


def _expectation(details: ErrorDetails) -> str:
    """What was expected, in our words where pydantic's would not help."""
    match details["type"]:
        case "extra_forbidden":
            return _unknown(details["loc"])
        case "missing":
            return "is required; add it"
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"expected a table, such as [{written(details['loc'])}]"
        case "value_error" | "assertion_error":
            return details["msg"].partition(", ")[2]
    return details["msg"].replace("Input should be", "expected", 1).replace("Input should", "expected to", 1)


def _unknown(loc: KeyPath) -> str:
    """What stands there instead, and the key that was probably meant."""
    shape = _shape(loc[:-1])
    known = sorted(shape.model_fields) if isinstance(shape, type) and issubclass(shape, BaseModel) else []
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"unknown key; {hint}known here: {', '.join(known)}"


def _shape(path: KeyPath) -> Any:
    """The declared type at a path; None where there is none."""
    shape: Any = Config
    for part in path:
        shape = _inside(_bare(shape), part)
    return _bare(shape)


def _inside(shape: Any, part: str | int) -> Any:
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        field = shape.model_fields.get(str(part))
        return None if field is None else field.annotation
    return get_args(shape)[-1] if get_origin(shape) in {dict, list} else None


def _bare(shape: Any) -> Any:
    """Without `Annotated` and `| None`."""
    while get_origin(shape) is Annotated:
        shape = get_args(shape)[0]
    if get_origin(shape) in {Union, UnionType}:
        some = [arm for arm in get_args(shape) if arm is not type(None)]
        return _bare(some[0]) if len(some) == 1 else shape
    return shape


def _is_table_or_list(path: KeyPath) -> bool:
    shape = _shape(path)
    return get_origin(shape) in {dict, list} or (isinstance(shape, type) and issubclass(shape, BaseModel))


def _hidden(value: Any, path: KeyPath, secret: Collection[KeyPath]) -> Any:
    """The value with `***` for every secret in it: what came through `${…}`, and what its name gives away."""
    if isinstance(value, dict):
        return {key: _hidden(inner, (*path, key), secret) for key, inner in value.items()}
    if isinstance(value, list):
        return [_hidden(inner, (*path, index), secret) for index, inner in enumerate(value)]
    return _HIDDEN if path in secret or (value and _SECRET_NAME.search(written(path))) else value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}…"


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)
