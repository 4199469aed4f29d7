//! Keys of `partition`.

use super::{Key, Shape, key};

/// `partition`. It has one of the cadences, `static`, `dynamic` or `dimensions`.
pub static PARTITION: &[Key] = &[
    DIMENSION[0],
    DIMENSION[1],
    DIMENSION[2],
    DIMENSION[3],
    DIMENSION[4],
    DIMENSION[5],
    DIMENSION[6],
    DIMENSION[7],
    DIMENSION[8],
    DIMENSION[9],
    DIMENSION[10],
    DIMENSION[11],
    key(
        "dimensions",
        Shape::Named(&Shape::Map(DIMENSION)),
        "Several ways at once, by name, at most one of them of time: every combination of their keys is a partition, `id|2024-01-01` in the order of the names.",
    ),
    key(
        "reads",
        Shape::Named(&Shape::TextOr(READS)),
        "Which partitions of other assets each one reads, by asset, where it is not those whose windows share a moment with its own, or that have its key: `all`, or a mapping.",
    ),
    key(
        "needs_previous",
        Shape::Boolean,
        "Whether each partition reads the one before it, so that they are made one after the other, and again when that one is.",
    ),
];

/// Which partitions of another asset are read.
pub static READS: &[Key] = &[
    key(
        "offset",
        Shape::Text,
        "Those of the window so many places behind its own: `-1` is the one before. Counted in windows of the reader.",
    ),
    key("from", Shape::Text, "With `to`: those of several windows, from this offset on."),
    key("to", Shape::Text, "With `from`: up to this offset, included."),
    key("keys", Shape::Texts, "These, whatever its own key is."),
];

/// One way of cutting. It has one of the cadences, `static` or `dynamic`.
pub static DIMENSION: &[Key] = &[
    key("hourly", Shape::Text, "Windows of an hour by this column, from one full hour of UTC to the next."),
    key("daily", Shape::Text, "Days by this column."),
    key("weekly", Shape::Text, "Weeks by this column, from Monday."),
    key("monthly", Shape::Text, "Months by this column."),
    key("quarterly", Shape::Text, "Quarters by this column."),
    key("yearly", Shape::Text, "Years by this column."),
    key("start", Shape::Text, "The first day, or time, of the first window. Windows of time need it."),
    key("end", Shape::Text, "Where the last window ends. By default there is no end."),
    key("timezone", Shape::Text, "The time zone of the windows. By default the project's."),
    key("static", Shape::Texts, "The keys, in their order."),
    key("dynamic", Shape::Text, "The name of a set of keys that grows while the project runs: `subak partition add NAME KEY`."),
    key("column", Shape::Text, "The column that holds the key, for `static` and `dynamic`."),
];
