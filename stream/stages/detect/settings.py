"""What the stage is told once, at start: the settings of the rooms it calls, and who sends its alerts."""

from collections.abc import Mapping

from msgspec import Struct, field

from stream.alerts.evidence import Sender
from stream.alerts.policy import ModelSettings
from stream.alerts.policy import Settings as AlertSettings
from stream.alerts.retrain import Settings as RetrainSettings
from stream.detectors import ENABLED
from stream.detectors.adwin import Settings as AdwinSettings
from stream.detectors.budget import Settings as BudgetSettings
from stream.detectors.challenger import Settings as ChallengerSettings
from stream.detectors.histogram import Settings as HistogramSettings
from stream.detectors.mean import Settings as MeanSettings
from stream.detectors.page_hinkley import Settings as PageHinkleySettings
from stream.detectors.river import Settings as RiverSettings
from stream.profiles.cuts import Declared
from stream.profiles.learning import Settings as LearnSettings
from stream.profiles.seasons import Settings as SeasonSettings
from stream.profiles.windows import Settings as WindowSettings
from stream.signals.outcomes import ModelSettings as OutcomeSettings
from stream.signals.outliers import Settings as OutlierSettings
from stream.wire.inbound import Limits


class Settings(Struct, frozen=True, eq=False):
    """Bound once; equal only to itself, so that what follows from it can be remembered by it."""

    sender: Sender
    windows: WindowSettings = field(default_factory=WindowSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    enabled: tuple[str, ...] = ENABLED
    """Names of detectors, those of river as `river:KSWIN`."""
    histogram: HistogramSettings = field(default_factory=HistogramSettings)
    mean: MeanSettings = field(default_factory=MeanSettings)
    adwin: AdwinSettings = field(default_factory=AdwinSettings)
    page_hinkley: PageHinkleySettings = field(default_factory=PageHinkleySettings)
    river: Mapping[str, RiverSettings] = field(default_factory=dict)
    """By name, as in `enabled`; defaults for those that are not here."""
    outliers: OutlierSettings = field(default_factory=OutlierSettings)
    learn: LearnSettings = field(default_factory=LearnSettings)
    seasonality: SeasonSettings = field(default_factory=SeasonSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)
    limits: Limits = field(default_factory=Limits)
    models: Mapping[str, ModelSettings] = field(default_factory=dict)
    importance: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By model id and signal; 1 for those that are not here."""
    declared: Mapping[str, Declared] = field(default_factory=dict)
    """By model id."""
    topics: tuple[str, ...] = ("predictions",)
    """Input topics whose partitions a window waits for."""
    outcome_topics: tuple[str, ...] = ()
    """Topics whose partitions a window of outcomes waits for: those of feedback, and that of pairs; none without any
    feedback."""
    outcomes: Mapping[str, OutcomeSettings] = field(default_factory=dict)
    """By model id."""
    horizon: int = 604_800_000
    """Milliseconds after which a label does not count: so long nothing is learned of a new version's outcomes."""
    challenger: ChallengerSettings = field(default_factory=ChallengerSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
