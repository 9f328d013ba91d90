"""Views of what models are and say, and of what came true."""

from plugin.historian.schema.sample_views import last_told
from plugin.historian.schema.view import Column, View, Words, quality, span

_OUTPUT = (
    Column("model", "o.model", "Name of the model"),
    Column("asset", "o.asset", "Machine"),
    Column("output", "o.output", "Which of the model's numbers, such as `rul`"),
    Column("unit", "o.unit", "Of the value and its bounds"),
)
_SAID = (
    Column("value", "p.value", "What was predicted; NULL: no number"),
    Column("lower", "p.lower", "Lower bound; NULL: none"),
    Column("upper", "p.upper", "Upper bound"),
)


def _shadow(table: str) -> Column:
    return Column(
        "shadow",
        f"(SELECT r.kind FROM runs AS r WHERE r.id = {table}.run_id) = 'shadow'",
        "Whether a challenger said it, to be compared and never published",
    )


_BY = (
    Column("version", "p.version", "Version of the model; 0: no model had run"),
    Column("run_id", "p.run_id", "Key of the run, in `v_runs`"),
    _shadow("p"),
)
_PREDICTED = "predictions AS p JOIN output_tags AS o ON o.id = p.output_id"


def _said(sql: Words) -> tuple[Column, ...]:
    return (
        *_OUTPUT,
        *sql.times("as_of", "p.as_of", "End of the window that the model looked at"),
        *sql.times("target_time", "p.target_time", "The instant that the number speaks of"),
        *_SAID,
        Column("status", "p.status", "OPC UA StatusCode, all 32 bits"),
        quality("p.status"),
        Column("coverage", "p.coverage", "Share of the window that was observed, 0 to 1"),
        *sql.times("valid_until", "p.valid_until", "After this it is stale"),
        *_BY,
    )


def predictions(sql: Words) -> View:
    return View("v_predictions", "Every prediction that was made.", _said(sql), _PREDICTED)


def forecasts(sql: Words) -> View:
    ahead = Column("horizon_s", span("(p.target_time - p.as_of)", 1e6), "How far it looks ahead [s]")
    says = "The predictions that speak of a later instant than the one they were made at."
    return View("v_forecasts", says, (*_said(sql), ahead), f"{_PREDICTED}\nWHERE p.target_time > p.as_of")


def accuracy(sql: Words) -> View:
    best = f"CASE p.truth WHEN 'failure' THEN {sql.least('p.actual', 'p.high')} ELSE p.actual END"
    bounded = "p.lower IS NOT NULL OR p.upper IS NOT NULL"
    within = f"{best} BETWEEN COALESCE(p.lower, {best}) AND COALESCE(p.upper, {best})"
    inside = f"CASE WHEN {bounded} THEN CASE WHEN {within} THEN 1 ELSE 0 END END"
    columns = (
        *(Column(column.name, column.sql.replace("o.", "p."), column.says) for column in _OUTPUT),
        *sql.times("as_of", "p.as_of", "End of the window that the model looked at"),
        *sql.times("target_time", "p.target_time", "The instant that the number speaks of"),
        *_SAID,
        quality("p.status"),
        Column("truth", "p.truth", "What came true by: `laboratory`, `measured` or `failure`, see below"),
        *sql.times("actual_time", "p.actual_time", "When the specimen was drawn, the minute began, it failed"),
        Column("actual", "p.actual", "What came true [unit]"),
        Column(
            "error",
            f"p.value - {best}",
            "`value - actual`; a remaining life beyond what the output can say counts as its limit",
        ),
        Column("inside", inside, "1: within the bounds, 0: beyond them, NULL: it has none; one that is NULL is open"),
        *_BY,
    )
    parts = "\nUNION ALL\n".join((_laboratory(sql), _MEASURED, _failures(sql)))
    return View("v_prediction_accuracy", "Predictions beside what came true.", columns, f"(\n{parts}\n) AS p")


_PAIRED = (
    "o.model, o.asset, o.output, o.unit, o.high, "
    "p.as_of, p.target_time, p.value, p.lower, p.upper, p.status, p.version, p.run_id"
)


def _spec(sql: Words, role: str) -> str:
    """Which feature plays a role, by model: as its newest version says."""
    newest = "version = (SELECT max(version) FROM model_versions AS n WHERE n.model = v.model)"
    return f"(SELECT model, {sql.role(role)} AS feature FROM model_versions AS v WHERE {newest})"


def _laboratory(sql: Words) -> str:
    """Each Good result of the laboratory, with what each version last said of the moment of the specimen."""
    return f"""SELECT {_PAIRED}, 'laboratory' AS truth, l.time AS actual_time, l.value AS actual
FROM (
  SELECT o.id AS output_id, l.taken AS time, l.value
  FROM lab_samples AS l JOIN output_tags AS o ON o.asset = l.asset AND o.output = l.quantity
  WHERE l.status >> 30 = 0 AND l.value IS NOT NULL
  UNION ALL
  SELECT o.id, r.last_time, r.last_value
  FROM {_spec(sql, "lab")} AS m JOIN output_tags AS o ON o.model = m.model AND o.meaning = 'value'
  JOIN tags AS t ON t.asset = o.asset AND t.feature = m.feature AND t.unit = o.unit
  JOIN rollup_minutes AS r ON r.tag_id = t.id
  WHERE r.last_status >> 30 = 0 AND r.last_value IS NOT NULL
) AS l
JOIN output_tags AS o ON o.id = l.output_id
JOIN model_versions AS n ON n.model = o.model
JOIN predictions AS p ON p.output_id = o.id AND p.version = n.version AND p.target_time = (
  SELECT max(q.target_time) FROM predictions AS q
  WHERE q.output_id = o.id AND q.version = n.version AND q.target_time <= l.time
)
WHERE p.value IS NOT NULL AND l.time < p.target_time + p.valid_until - p.as_of"""


_MEASURED = f"""SELECT {_PAIRED}, 'measured', r.start_time, r.mean
FROM predictions AS p JOIN output_tags AS o ON o.id = p.output_id
JOIN tags AS t ON t.asset = o.asset AND t.feature = o.output
JOIN rollup_minutes AS r ON r.tag_id = t.id AND r.start_time = p.target_time - p.target_time % 60000000
WHERE p.value IS NOT NULL AND r.mean IS NOT NULL AND r.good = r.samples"""
"""Each prediction whose output is named as a measured feature, with the minute that it speaks of, where all is Good."""


def _age(time: str) -> str:
    """What the tag ``t`` told last before a time: by its minutes; and where one does not say it, as it is not over or
    ends with no number, by its samples as long as they are kept."""
    newest = f"SELECT max(m.start_time) FROM rollup_minutes AS m WHERE m.tag_id = t.id AND m.start_time < {time}"
    return f"""coalesce(
      (
        SELECT {last_told("t.id", "r.start_time", time)} FROM rollup_minutes AS r
        WHERE r.tag_id = t.id AND r.start_time = ({newest}) AND (r.last_time >= {time} OR r.last_value IS NULL)
      ),
      (
        SELECT r.last_value FROM rollup_minutes AS r
        WHERE r.tag_id = t.id AND r.start_time < {time} AND r.last_time < {time} AND r.last_value IS NOT NULL
        ORDER BY r.start_time DESC LIMIT 1
      )
    )"""


def _falls(sql: Words) -> str:
    """Where ages started over, of machines that failed: minutes that end with less than the one before did. ``begun``:
    of the life that ended there."""
    return f"""SELECT tag_id, before, after, reached,
    lag(after) OVER (PARTITION BY tag_id ORDER BY after) AS begun
  FROM (
    SELECT r.tag_id, r.last_time AS after, r.last_value, lag(r.last_time) OVER minutes AS before,
      lag(r.last_value) OVER minutes AS told,
      {sql.greatest("lag(r.last_value) OVER minutes", "r.maximum")} AS reached
    FROM rollup_minutes AS r
    WHERE r.last_value IS NOT NULL AND r.tag_id IN (
      SELECT t.id FROM {_spec(sql, "age")} AS m
      JOIN output_tags AS o ON o.model = m.model AND o.meaning = 'lifetime'
      JOIN tags AS t ON t.asset = o.asset AND t.feature = m.feature
      JOIN labels AS f ON f.asset = o.asset AND f.kind = 'failure'
    )
    WINDOW minutes AS (PARTITION BY r.tag_id ORDER BY r.start_time)
  ) AS r
  WHERE last_value < told"""


_FAILED = """SELECT f.asset, f.model, f.start_time, f.tag_id, {age} AS end_age, {time} AS end_time, {begun} AS begun
  FROM (
    SELECT f.*, l.before, l.after, l.reached, l.begun, CASE WHEN f.age <= 0.1 * l.reached
    AND f.start_time - l.after <= 259200000000 AND NOT EXISTS (
      SELECT 1 FROM labels AS w
      WHERE w.asset = f.asset AND w.kind = 'work_order' AND w.start_time <= f.start_time
        AND (w.end_time IS NULL OR w.end_time >= l.before)
    ) THEN 1 ELSE 0 END AS late
    FROM told AS f LEFT JOIN falls AS l ON l.tag_id = f.tag_id AND l.after = (
      SELECT max(n.after) FROM falls AS n
      WHERE n.tag_id = f.tag_id AND (n.after <= f.start_time OR (n.before < f.start_time AND f.age < n.reached))
    )
  ) AS f""".format(
    age="CASE f.late WHEN 1 THEN f.reached ELSE f.age END",
    time="CASE f.late WHEN 1 THEN f.before ELSE f.start_time END",
    begun="CASE f.late WHEN 1 THEN f.begun ELSE f.after END",
)
"""Failures with the lives that they ended; one that is told late, within three days, when the unit was hardly any older
again, ended where the old age did, unless a work order says why it started over."""


def _failures(sql: Words) -> str:
    """Each remaining life, with the failure that came: in time, or by how much the unit's age grew until then. What
    failed after an overhaul, or after the age had started over, was another life."""
    units = {"s": 1e6, "min": 6e7, "h": 3.6e9, "d": 8.64e10}
    spans = "\n    ".join(f"WHEN '{unit}' THEN {span('(f.end_time - p.as_of)', size)}" for unit, size in units.items())
    return f"""SELECT * FROM (
  WITH falls AS MATERIALIZED (
  {_falls(sql)}
  ), told AS MATERIALIZED (
  SELECT DISTINCT f.asset, o.model, f.start_time, t.id AS tag_id, {_age("f.start_time")} AS age
  FROM labels AS f JOIN output_tags AS o ON o.asset = f.asset AND o.meaning = 'lifetime'
  LEFT JOIN {_spec(sql, "age")} AS m ON m.model = o.model
  LEFT JOIN tags AS t ON t.asset = o.asset AND t.feature = m.feature
  WHERE f.kind = 'failure'
  ), failed AS MATERIALIZED (
  {_FAILED}
  )
  SELECT {_PAIRED}, 'failure', f.start_time, CASE o.unit
    {spans}
    ELSE f.end_age
       - {_age("p.as_of")} END AS actual
  FROM predictions AS p JOIN output_tags AS o ON o.id = p.output_id AND o.meaning = 'lifetime'
  JOIN failed AS f ON f.asset = o.asset AND f.model = o.model AND f.start_time = (
    SELECT min(n.start_time) FROM labels AS n
    WHERE n.asset = o.asset AND n.kind = 'failure' AND n.start_time > p.as_of
  ) AND p.as_of <= f.end_time AND p.as_of >= coalesce(f.begun, p.as_of)
  LEFT JOIN tags AS t ON t.id = f.tag_id
  WHERE p.value IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM labels AS w
    WHERE w.asset = o.asset AND w.kind = 'work_order' AND w.end_time > p.as_of AND w.end_time < f.start_time
  )
) AS lives WHERE actual >= 0"""


_VERDICT = """(
    SELECT l.verdict FROM labels AS l
    WHERE l.asset = f.asset AND l.kind = 'verdict' AND l.model = f.model AND l.as_of = f.as_of
    ORDER BY l.created DESC, l.id LIMIT 1
  )"""


def flags(sql: Words) -> View:
    columns = (
        Column("model", "f.model", "Name of the model"),
        Column("asset", "f.asset", "Machine"),
        *sql.times("as_of", "f.as_of", "End of the window that the model looked at"),
        Column("raised", "f.raised", "Whether the flag is raised"),
        Column("score", "f.score", "How anomalous it was; NULL: no score"),
        Column("threshold", "f.threshold", "Above this, and lasting, the flag is raised"),
        Column("status", "f.status", "OPC UA StatusCode, all 32 bits"),
        quality("f.status"),
        Column(
            "verdict", _VERDICT, "Of an operator: `confirmed`, `false_alarm`, `unclear`; NULL: nobody said anything"
        ),
        Column("version", "f.version", "Version of the model"),
        Column("run_id", "f.run_id", "Key of the run, in `v_runs`"),
        _shadow("f"),
    )
    says = "The decisions on anomaly scores, and what operators said of them."
    return View("v_flags", says, columns, "flags AS f")


def explanations(sql: Words) -> View:
    columns = (
        *_OUTPUT[:3],
        *sql.times("as_of", "e.as_of", "End of the window that the model looked at"),
        Column("feature", "e.feature", "One of its inputs"),
        Column("share", "e.share", "Its share in what the output is, 0 to 1"),
        Column("run_id", "e.run_id", "Key of the run, in `v_runs`"),
    )
    tables = "explanations AS e JOIN output_tags AS o ON o.id = e.output_id"
    return View("v_explanations", "Which inputs made an output what it is.", columns, tables)


def drifts(sql: Words) -> View:
    columns = (
        Column("model", "d.model", "Name of the model"),
        Column("version", "d.version", "Of the model"),
        Column(
            "kind",
            "d.kind",
            "`input`, `residual` or `coverage` put what is said in doubt; `distribution` and `bias` are remarks",
        ),
        Column("asset", "d.asset", "Machine"),
        Column("subject", "d.subject", "The input or output that it was seen in"),
        *sql.times("since", "d.since", "Of the first value that is unlike those before"),
        *sql.times("noticed", "d.noticed", "When it was noticed"),
        *sql.times("until", "d.until", "NULL: it lasts"),
        Column("statistic", "d.statistic", "What was found"),
        Column("limit_value", "d.limit_value", "What it may be"),
        Column("detail", "d.detail", "For a person"),
    )
    return View("v_drifts", "Where a model and the plant have come apart.", columns, "drifts AS d")


def runs(sql: Words) -> View:
    columns = (
        Column("run_id", "r.id", "Key"),
        Column("model", "r.model", "Name of the model"),
        Column("kind", "r.kind", "`score`, `shadow` (of a challenger) or `train`"),
        *sql.times("scheduled", "r.scheduled", "When it was due"),
        *sql.times("started", "r.started", "NULL: it never was"),
        *sql.times("finished", "r.finished", "NULL: not yet, or it was cut off"),
        Column("result", "r.result", "`running`, `done`, `failed`, `missed`"),
        Column("version", "r.version", "Of the model; 0: none"),
        Column("assets", "r.assets", "How many machines it was about"),
        Column("error", "r.error", "Why it failed"),
    )
    return View("v_runs", "Scheduled executions of models.", columns, "runs AS r")


def versions(sql: Words) -> View:
    columns = (
        Column("model", "m.model", "Name of the model"),
        Column("version", "m.version", "1, 2, …"),
        Column("kind", "m.kind", "Such as `rul_lstm`"),
        Column("state", "m.state", "`champion` (in force), `challenger`, `retired`"),
        *sql.times("created", "m.created", "When it was trained"),
        Column("metrics", "m.metrics", "On held-out data, as JSON"),
        Column("provenance", "m.provenance", "What it was trained on and by, as JSON"),
        Column("sha256", "m.sha256", "Of its artifact"),
    )
    return View("v_model_versions", "Trained models.", columns, "model_versions AS m")
