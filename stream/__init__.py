"""Driftstream: predictions in, alerts out, exactly once, over Kafka.

Read the drawing downwards to see who may import whom; read the five numbered rooms upwards to follow the data.
Whoever reads the files in `stages/` has seen the product.

stream/
├── __main__.py       python -m stream is drift
├── cli/              the doorway        one command per module: parse, load the Config, call one function, print
│   ├── app.py          the table of commands; a command is loaded when it is called
│   ├── options.py      options that several commands have
│   ├── binding.py      the stages with the settings of a Config bound
│   ├── clients.py      Kafka as the commands need it: topics read without a group
│   ├── rendering.py    alerts on a terminal
│   ├── columns.py      tables as lines of text
│   ├── run.py          drift run: the service
│   ├── replay.py       drift replay: the same stages over files
│   ├── tail.py         drift tail: shows alerts, and follows them
│   ├── status.py       drift status: what is open, how far the workers have come, what the budget buys
│   ├── standing.py     how things stand, from what the topics hold and the group has committed
│   ├── reference.py    drift reference: build, show, publish
│   ├── references.py   references as files and as records
│   ├── labelled.py     labelled rows as windows of outcomes, through ingest and join
│   ├── control.py      drift control: writes a person's decision
│   ├── topics.py       drift topics: make and check them
│   ├── validate.py     drift validate: a configuration, or files of records
│   ├── config.py       drift config: the settings in force and where each comes from
│   ├── health.py       drift health: asks a running worker whether it is ready
│   ├── schema.py       drift schema: JSON Schemas of what we publish
│   ├── evaluate/       drift evaluate: a configuration over streams whose changes are known, beside other detectors
│   │   ├── notation.py   streams written down, and the laws they are made of
│   │   ├── scenario.py   a labelled stream, its configuration, and what to expect
│   │   ├── streams.py    references and windows of all repetitions at once
│   │   ├── product.py    detect's own watch over every window
│   │   ├── lives.py      versions that learn their reference from the stream, and let it mature
│   │   ├── recorded.py   files of predictions with the times of their changes
│   │   ├── baselines.py  what others would have said
│   │   ├── score.py      recall, delay and false alarms
│   │   ├── measure.py    one scenario, and whether what is expected holds
│   │   ├── page.py       results as tables and charts
│   │   └── chart.py      lines as SVG
│   └── demo/           drift demo: real data, a planted drift and the real worker in one process
│       ├── shuttle.py    the rows and the model
│       ├── reference.py  what is normal for it
│       ├── stage.py      broker, worker, producer and audience
│       └── traffic.py    the same data into a Kafka of yours
├── config.py         the key rack       one Config made of every room's Settings: load, merge environment, validate
├── worker/           the engine room    the only place with a clock, a socket, a thread or a disk
│   ├── run.py          the worker as a process: slot, signals, exit code
│   ├── loop.py         poll, step, commit
│   ├── balance.py      who may read: internal topics before inputs, no input far ahead of the others
│   ├── task.py         one stage on one partition, its life as a table, its committed and its running state
│   ├── commit.py       one transaction in five named steps
│   ├── restore.py      committed offset, newest readable snapshot, silent replay
│   ├── snapshots.py    how a state stands in the compacted topic
│   ├── metadata.py     what a committed offset remembers of its task
│   ├── ticks.py        what an idle partition says of time
│   ├── stages.py       the stages as the worker sees them: functions with their settings bound
│   ├── ends.py         the two ends of the loop
│   ├── kafka.py        the source over Kafka, and the broadcast of references
│   ├── sink.py         the transactional producer
│   ├── access.py       whether the broker is there and lets us in
│   ├── clients.py      the properties of every Kafka client, and how its errors are judged
│   ├── local.py        the twin of Kafka in memory
│   ├── cluster.py      what a broker keeps, in memory
│   ├── files.py        files of predictions as partitions
│   ├── replay.py       the same loop over files, without Kafka
│   ├── rerun.py        a run once more, from what it left in the log
│   ├── topics.py       the topics as they are made and checked
│   ├── http.py         metrics and health: reads, never decides
│   ├── metrics.py      the typed list of metrics
│   ├── telling.py      what metrics learn from records on their way out
│   ├── status.py       what the worker knows of itself
│   ├── look.py         where the tasks stand, written down for the metrics
│   ├── overview.py     what detect's states say, gathered over the tasks
│   ├── logs.py         one JSON object per line
│   ├── watchdog.py     ends the process when a call into the client hangs
│   ├── failpoints.py   planned accidents, for tests
│   └── settings.py     sections of the configuration that concern the engine room
├── stages/           the product        pure functions step(state, batch) → (state, outputs)
│   ├── ingest.py       records → partial profiles, samples, dead letters; then forgets
│   ├── join/           halves of pairs → predictions and labels, met → outcomes
│   │   ├── settings.py   what the stage is told once, at start
│   │   ├── state.py      all it remembers, none of which is saved
│   │   ├── rows.py       halves of pairs as columns
│   │   ├── inbox.py      rows whose window is not over yet
│   │   ├── store.py      rows packed into few bytes, found by key
│   │   ├── progress.py   time goes on: rows meet, and end
│   │   ├── meet.py       who meets whom
│   │   ├── compare.py    champion against challenger
│   │   ├── places.py     where a replay must begin
│   │   └── told.py       what was found out, on its way to records
│   └── detect/         partial profiles → windows → verdicts → alerts and readings
│       ├── settings.py   what the stage is told once, at start
│       ├── state.py      all it remembers: what is encoded here is the snapshot
│       ├── decisions.py  what people have decided, and to which windows it applies
│       ├── plan.py       what follows from a reference and the settings alone
│       ├── mature.py     whether a learned reference may pass its next age
│       ├── season.py     what is normal in one window, by its hour
│       ├── series.py     distributions, means and rates behind the same few functions
│       ├── close.py      one closed window: learned from, judged, told
│       ├── watch.py      one closed window through all detectors
│       ├── inputs.py     the watch over inputs, and how serving spreads where their reference does not know
│       ├── detections.py ADWIN, Page-Hinkley and river's, asked alongside
│       ├── shown.py      what all that is told of a closed window shows
│       ├── readings.py   a reading per signal
│       ├── power.py      what the budget buys: shares, thresholds, the smallest change found in time
│       ├── silence.py    the number of predictions: judged, read and told
│       ├── tally.py      verdicts and alarms, counted
│       ├── overview.py   what metrics say of a task
│       ├── impact.py     what the change of an open episode means for the model
│       ├── tell.py       alerts and notices
│       ├── recent.py     what inputs leave behind for the outcomes of the same windows
│       └── labels/       outcomes → windows → verdicts → alerts and readings, later than inputs
│           ├── plan.py       what follows from a reference of outcomes
│           ├── shown.py      a closed window of outcomes
│           ├── readings.py   how well the model does, and how its labels come
│           ├── tell.py       what alerts on outcomes say
│           ├── damage.py     which segments and scores carry the loss
│           ├── rivals.py     champion and challenger
│           └── requests.py   when a new model is asked for
├── alerts/        5  what people are told     verdicts → alerts
│   ├── lifecycle.py    the table pending → firing → resolved and its times, one row per fingerprint
│   ├── policy.py       severity, labels, annotations
│   ├── retrain.py      when open alerts ask for a new model, on which data
│   ├── evidence.py     what one alert shows: signals ranked, before and after, since when, offsets
│   └── wording.py      summary, description, action
├── detectors/     4  how surprised we are     profiles → verdicts
│   ├── budget.py       from "one false alarm a week" to every threshold
│   ├── locate.py       since when, and in which shape: sudden, gradual, temporary, recurring
│   ├── episode.py      what counts as normal while an alert fires
│   ├── histogram.py    e-detector of distributions
│   ├── mean.py         e-detector of bounded means and rates
│   ├── silence.py      e-detector of numbers of events that fall
│   ├── adwin.py        adaptive windowing over weighted means
│   ├── page_hinkley.py the classic chart, weighted
│   ├── river.py        any detector of river, by name
│   ├── challenger.py   whether another version answers the same requests better, or worse
│   ├── interval.py     where a mean lies, however often one looks
│   └── effects.py      effect sizes: how far, whatever the number of events
├── profiles/      3  what we remember         signals → profiles
│   ├── summaries.py    integers that merge exactly: bin counts, fixed-point moments, the bottom-k sample
│   ├── outcomes.py     integers of what pairs measure: scores, classes, errors, delays
│   ├── performance.py  metrics of a window, from its outcomes
│   ├── estimate.py     the same without labels, from calibrated scores
│   ├── exact.py        sums that are exact, and so equal in any order
│   ├── outcome_tables.py  what is normal for outcomes, and what a window of them shows against it
│   ├── outcome_reference.py  references of outcomes as they are written down
│   ├── outcome_learning.py  a reference of outcomes from the stream, or from labelled rows
│   ├── windows.py      which window an event belongs to; watermark, lateness, closing
│   ├── reference.py    what normal is, and which reference is in force when
│   ├── cuts.py         bins and categories of a reference: its first phase
│   ├── building.py     a reference from training rows
│   ├── learning.py     a reference from the stream
│   ├── maturing.py     a learned reference that takes up what came since
│   ├── overdispersion.py  how much wider sums spread than under independence
│   ├── cycles.py       what learning adds up hour by hour
│   ├── volume.py       how many events a window brings, by hour, and how that spreads
│   ├── seasons.py      what is normal at this hour
│   ├── coarse.py       a distribution of which only coarse bins are kept, for readers
│   ├── describe.py     mean, deviation and quantiles of a window, for readers
│   └── trail.py        where the recent windows stand in the input
├── signals/       2  what we measure          events → signals
│   ├── extract.py      columns of events and a reference → one bin per signal and row
│   ├── outliers.py     one score per record
│   ├── halves.py       predictions and labels as halves of pairs
│   └── outcomes.py     pairs of a prediction and its label as columns, and the grids they are counted on
└── wire/          1  what crosses Kafka       bytes ↔ structs
    ├── record.py       the two ends of every topic
    ├── inbound.py      what others send, as columns of events
    ├── feedback.py     labels that others send, as columns
    ├── rows.py         a batch of records, each a row or a value that says what is wrong
    ├── adapters/       a page per input format
    │   ├── native.py     native JSON: predictions
    │   └── feedback.py   native JSON: labels
    ├── features.py     features of one reference, from JSON text to columns
    ├── lenient.py      JSON values as producers write them
    ├── dead_letter.py  a record that could not be read, kept as it came
    ├── internal.py     what stages tell each other: partial profile, sample, watermark, tick, reference
    ├── outbound.py     what we tell: verdict, reading, alert
    ├── control.py      what people decide: mute, relearn, resolve, retrained, marker
    ├── codec.py        bytes ↔ structs; a bad record is a value, never an exception
    ├── canonical.py    the form of JSON that hashes are taken of
    ├── times.py        times as they are written, and as milliseconds
    └── durations.py    durations as people write them
"""
