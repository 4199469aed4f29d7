//! Keys that say when assets are brought up to date by themselves, and how old they may become.

use super::{Key, NOTICE, Shape, key, required};

/// When an asset is brought up to date by itself.
pub static AUTOMATION: &[Key] = &[
    key("cron", Shape::Text, "Once for each tick of this cron line, when all that it reads was brought up to date since."),
    key("timezone", Shape::Text, "The time zone of the cron lines. By default the project's."),
    key("fresh", Shape::Duration, "When it was not brought up to date for so long."),
    key("when", Shape::Text, "A condition: `in_latest_time_window and any_deps_updated since_last_handled and not in_progress`."),
];

/// How old an asset may become.
pub const FRESHNESS_KEY: Key = key(
    "freshness",
    Shape::Map(FRESHNESS_POLICY),
    "How old it may become. While a server runs, people are told when it is older, and when it is fresh again.",
);

/// `freshness` of an asset.
pub static FRESHNESS_POLICY: &[Key] = &[
    required("max_age", Shape::Duration, "How long ago it was brought up to date at most; with `deadline`, at each deadline."),
    key("warn_age", Shape::Duration, "The age from which on it is shown as one that will be late soon."),
    key("deadline", Shape::Texts, "Cron lines: when it has to be fresh. Without it, at any time."),
    key("timezone", Shape::Text, "The time zone of the cron lines. By default the project's."),
    key(
        "on_late",
        Shape::List(&Shape::TextOr(NOTICE)),
        "Who is told when it is late. By default those of the project's `defaults`.",
    ),
    key("on_recovery", Shape::List(&Shape::TextOr(NOTICE)), "Who is told when it is fresh again after that."),
];
