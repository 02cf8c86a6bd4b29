"""All that a detect task remembers. Plain values and arrays: what is encoded here is the snapshot."""

from msgspec import Struct, field

from stream.alerts.lifecycle import Row
from stream.alerts.retrain import State as RetrainState
from stream.detectors import Floats, Ints
from stream.detectors.adwin import State as AdwinState
from stream.detectors.challenger import State as ChallengerState
from stream.detectors.histogram import Law as HistogramLaw
from stream.detectors.histogram import State as HistogramState
from stream.detectors.locate import ChangePoint, ChangeType, History
from stream.detectors.mean import Law as MeanLaw
from stream.detectors.mean import State as MeanState
from stream.detectors.page_hinkley import State as PageHinkleyState
from stream.detectors.river import State as RiverState
from stream.detectors.silence import State as SilenceState
from stream.profiles.learning import State as LearningState
from stream.profiles.maturing import State as MaturingState
from stream.profiles.outcome_learning import State as OutcomeLearning
from stream.profiles.overdispersion import Sums
from stream.profiles.trail import Trail
from stream.profiles.volume import Sums as VolumeSums
from stream.profiles.windows import Marks
from stream.stages.detect.decisions import Decisions
from stream.stages.detect.plan import Group, Serving
from stream.stages.detect.recent import Answers, Spell
from stream.wire.internal import Outcomes, Partial, Sample, Volume

STATE_VERSION = 7


class Open(Struct, frozen=True):
    """A window that still waits for watermarks: its partial profiles merged so far, by reference, and its sample."""

    partials: dict[str, Partial] = field(default_factory=dict)
    sample: Sample | None = None


class Detectors(Struct, frozen=True, eq=False):
    """The e-detectors of each family."""

    ordered: HistogramState
    unordered: HistogramState
    rates: MeanState
    means: MeanState


class Laws(Struct, frozen=True, eq=False):
    """The laws of each family."""

    ordered: HistogramLaw
    unordered: HistogramLaw
    rates: MeanLaw
    means: MeanLaw


class Histories(Struct, frozen=True, eq=False):
    """The recent past of each family."""

    ordered: History
    unordered: History
    rates: History
    means: History


class Tests(Struct, frozen=True, eq=False):
    """Detectors without an e-value, of the series that the plan names; None while one is not enabled."""

    adwin: AdwinState | None = None
    """[measures * G * N] series: all by their first measure, then by the next."""
    page_hinkley: PageHinkleyState | None = None
    river: dict[str, RiverState] = field(default_factory=dict)


class OpenForm(Struct, frozen=True, eq=False):
    """The open detectors of all series; those without an episode are at rest."""

    laws: Laws
    detectors: Detectors


class Episode(Struct, frozen=True, eq=False):
    """A group whose alert is open, and what is known of the change."""

    windows: int
    """Closed since the alarm."""
    moved: list[int]
    """Columns listed, in the order they were found."""
    proven: bool
    """Whether the evidence lists them, or they only contribute."""
    points: dict[int, ChangePoint]
    """Since when, per listed column, the law of the reference is gone."""
    begun: dict[int, int]
    """Since when, per listed column, the law in force is: the change point of its last move."""
    shape: ChangeType | None
    """None where no type is told."""
    shifts: int = 0
    """Times yet another law was found."""


class Calibration(Struct, frozen=True, eq=False):
    """What the first live windows have shown of a reference that does not know serving."""

    sums: Sums
    counts: Ints
    """[G, T]"""
    rows: Ints
    """[G]"""
    windows: Ints
    """[G] windows with events."""


class Watch(Struct, frozen=True, eq=False):
    """The detectors of one model version under one reference."""

    first_ms: int
    """Start of the first window judged under this reference."""
    quiet: Detectors
    histories: Histories
    moments: History
    """[G, numeric signals, 4 + 1] moments of the recent past, and the events behind them."""
    tests: Tests = field(default_factory=Tests)
    open_form: OpenForm | None = None
    """Only while an episode is open."""
    episodes: dict[Group, Episode] = field(default_factory=dict)
    """Open ones, by segment and kind."""
    ended: dict[Group, Episode] = field(default_factory=dict)
    """Episodes that are over while their alert is still firing (`keep_firing_for`)."""
    earlier: dict[tuple[int, int], Floats] = field(default_factory=dict)
    """[J, B] laws of closed episodes, by segment and column."""
    anew: dict[Group, int] = field(default_factory=dict)
    """Start of the window in which the signals of a group came back, by group: what was before is history."""
    resets: dict[Group, dict[tuple[str, int], int]] = field(default_factory=dict)
    """Offsets at which the evidence of a group last began from nothing, by segment and kind; else `began`."""
    began: dict[tuple[str, int], int] = field(default_factory=dict)
    """Offsets at which the evidence of all groups began."""
    calibration: Calibration | None = None
    """Only while the overdispersion of serving is unknown."""
    serving: Serving | None = None
    """What it was found to be, where the reference does not tell."""


class Silence(Struct, frozen=True, eq=False):
    """The number of predictions of one model version under one reference."""

    quiet: SilenceState
    back: SilenceState | None = None
    """Only while an episode is open: whether they have come back."""
    since_ms: int = 0
    """Start of the window in which the evidence of the present silence began."""
    windows: int = 0
    """Closed since then."""
    events: int = 0
    """In these windows."""
    expected: float = 0.0
    """In the newest window of which something was."""
    sums: VolumeSums = field(default_factory=VolumeSums)
    """What a reference that does not tell is not needed for: windows without a silence, as long as it is learned."""
    known: Volume | None = None
    """What they say, from the first hundred on."""


class Version(Struct, frozen=True):
    """One model version."""

    next_ms: int
    """Start of the next window to close."""
    seen_ms: int
    """End of the newest closed window with events."""
    watched: bool = False
    """Whether a window of it was closed: from then on no earlier one is taken."""
    reference_id: str | None = None
    """The reference of the newest window that was judged."""
    segments: list[str] = field(default_factory=lambda: ["all"])
    """Its segments."""
    watch: Watch | None = None
    learning: LearningState | None = None
    maturing: MaturingState | None = None
    """Of the learned reference in force, or about to be."""
    since_ms: int = 0
    """End of the window that last changed the phase of learning."""
    trail: Trail = field(default_factory=Trail)
    alerts: dict[tuple[str, str], Row] = field(default_factory=dict)
    """By segment name and kind."""
    open: dict[int, Open] = field(default_factory=dict)
    """By window start."""
    silence: Silence | None = None
    said: dict[tuple[str, str], int] = field(default_factory=dict)
    """Verdicts of the newest closed window, by detector and level."""
    suppressed: int = 0
    """Alerts and notices of the newest closed window that a mute has kept back."""
    answers: dict[int, Answers] = field(default_factory=dict)
    """What closed windows leave for their outcomes, by the end of the window; empty where there are none."""
    spells: tuple[Spell, ...] = ()
    """Its alerts while they were firing."""
    relearned_ms: int | None = None
    """From when on a person wanted another reference, last: what was learned before is not used."""

    def silent_for(self, duration_ms: int) -> bool:
        """Whether no event has come for so long, in event time."""
        return self.next_ms - self.seen_ms >= duration_ms


class Rival(Struct, frozen=True):
    """What is known of a challenger in one segment."""

    state: ChallengerState
    told: int = 0
    """The last decision that was told."""


class OutcomeVersion(Struct, frozen=True):
    """The outcomes of one model version. Their windows close later than those of its inputs."""

    next_ms: int
    """Start of the next window to close."""
    seen_ms: int
    """End of the newest closed window with pairs, or with predictions at the end of their horizon."""
    watched: bool = False
    """Whether a window of it was closed: from then on no earlier one is taken."""
    reference_id: str | None = None
    """The reference of the newest window that was judged."""
    learned: bytes | None = None
    """The reference that was learned here, as it was published."""
    segments: list[str] = field(default_factory=lambda: ["all"])
    watch: Watch | None = None
    learning: OutcomeLearning = field(default_factory=OutcomeLearning)
    trail: Trail = field(default_factory=Trail)
    alerts: dict[tuple[str, str], Row] = field(default_factory=dict)
    """By segment name and kind."""
    open: dict[int, Outcomes] = field(default_factory=dict)
    """By window start."""
    rivals: dict[str, Rival] = field(default_factory=dict)
    """Of a challenger, by segment."""
    retrain: RetrainState = field(default_factory=RetrainState)
    said: dict[tuple[str, str], int] = field(default_factory=dict)
    """Verdicts of the newest closed window, by detector and level."""
    suppressed: int = 0
    """Alerts and notices of the newest closed window that a mute has kept back."""
    relearns_ms: int | None = None
    """From when on another reference is wanted than those in force until then."""
    coverage: float | None = None
    """Share with a label of the predictions whose horizon ended in the newest closed window that had any."""
    silence: Silence | None = None

    def silent_for(self, duration_ms: int) -> bool:
        """Whether nothing has come for so long, in event time."""
        return self.next_ms - self.seen_ms >= duration_ms


class Tally(Struct, frozen=True):
    """What was said so far, counted for the metrics; part of the state, so that a restart counts nothing twice."""

    verdicts: dict[tuple[str, str], int] = field(default_factory=dict)
    """By detector and level."""
    alarms: dict[int, int] = field(default_factory=dict)
    """Episodes above `info` that began, by the end of the window in which they did; of the last `budget.period`."""
    suppressed: int = 0
    """Alerts and notices that mutes have kept back."""


class State(Struct, frozen=True):
    """What one partition of drift.profiles has told so far."""

    marks: Marks = field(default_factory=Marks)
    versions: dict[tuple[str, str], Version] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], OutcomeVersion] = field(default_factory=dict)
    digest: int = 0
    """Chained over the bytes of all that was published (`reliability.md` 4)."""
    refused: int = 0
    """Partial profiles of closed windows."""
    tally: Tally = field(default_factory=Tally)
    decisions: Decisions = field(default_factory=Decisions)
