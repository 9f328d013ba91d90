"""Views of what the plant said: tags, the newest samples, roll-ups, gaps."""

from collections.abc import Callable

from plugin.historian.schema.plant import clocks
from plugin.historian.schema.view import Column, View, Words, quality, span

TAG = (
    Column("tag", "t.name", "Name of the tag"),
    Column("asset", "t.asset", "Machine that it belongs to; NULL: none"),
    Column("feature", "t.feature", "Its role in the machine"),
    Column("unit", "t.unit", "Of its values"),
)
STATUS = Column("status", "s.status", "OPC UA StatusCode, all 32 bits")


def tags(_sql: Words) -> View:
    source = Column("source", "t.source", "Plant server that it comes from")
    node = Column("node", "t.node", "NodeId by namespace URI")
    element = Column("element", "t.element", "Part of the node's value; empty: all of it")
    low = Column("low", "t.low", "Lower end of its range [unit]; NULL: not known")
    high = Column("high", "t.high", "Upper end of its range [unit]")
    return View("v_tags", "The measurements.", (*TAG, source, node, element, low, high), "tags AS t")


_NEWEST = f"""(
    SELECT *, row_number() OVER (PARTITION BY tag_id ORDER BY source_time DESC, ordinal DESC) AS place
    FROM (
      SELECT tag_id, source_time, ordinal, value, status, server_time, received_time FROM latest_samples
      UNION ALL
      SELECT h.tag_id, h.source_time, h.ordinal, h.value, h.status, {clocks("h")}
      FROM (
        SELECT tag_id, max(source_time) AS source_time FROM samples
        WHERE source_time >= coalesce(
          (SELECT value FROM bookkeeping WHERE name = 'latest_since'), -9223372036854775807)
        GROUP BY tag_id
      ) AS n JOIN samples AS h ON h.source_time = n.source_time AND h.tag_id = n.tag_id
    ) AS candidates
  ) AS s
  JOIN tags AS t ON t.id = s.tag_id
  LEFT JOIN sample_texts AS x
    ON x.source_time = s.source_time AND x.tag_id = s.tag_id AND x.ordinal = s.ordinal
WHERE s.place = 1"""


def latest(sql: Words) -> View:
    columns = (
        *TAG,
        *sql.times("time", "s.source_time", "When the source took the value"),
        Column("value", "s.value", "The number; NULL: none (Bad, or a text)"),
        Column("text", "x.text", "What the number can't say; NULL: nothing"),
        STATUS,
        quality("s.status"),
        Column("server_time_us", "s.server_time", "When the server had it [µs]"),
        Column("received_time_us", "s.received_time", "When we had it [µs]"),
    )
    return View("v_latest", "The newest sample of every tag that has one.", columns, _NEWEST)


def rolled_up(level: str, width: int, name: str) -> Callable[[Words], View]:
    source = (
        f"rollup_{level}s AS s JOIN tags AS t ON t.id = s.tag_id\n"
        f"WHERE s.start_time + {width} <= (SELECT value FROM bookkeeping WHERE name = 'closed_until')"
    )

    def make(sql: Words) -> View:
        columns = (
            *TAG,
            *sql.times("time", "s.start_time", f"Begin of the {level}, in UTC"),
            Column("samples", "s.samples", "How many there are"),
            Column("good_samples", "s.good", "How many of them are Good"),
            Column("minimum", "s.minimum", "Of Good and Uncertain values; NULL: there is none"),
            Column("maximum", "s.maximum", "The same"),
            Column("mean", "s.mean", "Of these values, each counting once"),
            Column("weighted_mean", "s.weighted_mean", "Weighted by how long each value stood"),
            Column("first", "s.first_value", "Value of the first sample"),
            Column("last", "s.last_value", "Value of the last sample"),
            quality("s.last_status", "last_quality"),
            Column("observed_percent", span("s.observed * 100", width), f"Share of the {level} that had a value"),
            Column("good_percent", span("s.good_time * 100", width), f"Share of the {level} whose value was Good"),
        )
        says = f"Every tag by {level}, once the {level} is closed (`historian.close_after` behind the present)."
        return View(name, says, columns, source)

    return make


def gaps(sql: Words) -> View:
    columns = (
        Column("id", "g.id", "Of the gap"),
        Column("source", "g.source", "Plant server"),
        Column("tag", "g.tag", "NULL: all tags of the source"),
        *sql.times("start_time", "g.start_time", "First moment that is or may be missing"),
        *sql.times("end_time", "g.end_time", "NULL: it lasts"),
        Column("lasted_s", span("(g.end_time - g.start_time)", 1e6), "[s]; NULL: it lasts"),
        Column("cause", "g.cause", "Such as `subscription_lost`, `overflow_bit`, `server_down`"),
        Column("state", "g.state", "`open`: history may still fill it; `filled`; `unfillable`"),
        Column("rows_filled", "g.rows_filled", "Samples that came from history"),
        *sql.times("detected", "g.detected", "When it was found"),
        Column("detail", "g.detail", "For a person"),
    )
    return View("v_gaps", "Where samples are or may be missing, and why.", columns, "gaps AS g")
