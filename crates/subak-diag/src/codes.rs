//! Every code: its title, what it means and what to do. `subak explain` and the reference pages are made from this table.
//!
//! Codes are stable: an id is never used for something else, and one that is no longer raised stays listed.

/// A stable code with its documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// The id, for example `SBK0104`.
    pub id: &'static str,
    /// What it says, in a few words.
    pub title: &'static str,
    /// What it means.
    pub cause: &'static str,
    /// What to do.
    pub fix: &'static str,
}

/// The code with this id, whatever the case of its letters; `104` and `SBK104` are not ids.
pub fn find(id: &str) -> Option<&'static Code> {
    ALL.iter().find(|code| code.id.eq_ignore_ascii_case(id))
}

macro_rules! codes {
    ($($name:ident = $id:literal: $title:literal, $cause:literal, $fix:literal;)+) => {
        $(#[doc = $title] pub const $name: Code = Code { id: $id, title: $title, cause: $cause, fix: $fix };)+

        /// Every code, by id.
        pub static ALL: &[Code] = &[$($name),+];
    };
}

codes! {
    PROJECT_NOT_FOUND = "SBK0101":
        "there is no project here",
        "No `subak.yml` stands in this folder or in any folder above it.",
        "Change into a project, name one with `-C`, or make one with `subak init`.";
    FILE_UNREADABLE = "SBK0102":
        "a file of the project cannot be read",
        "The file is missing, its permissions forbid reading, or it is not UTF-8 text.",
        "Restore the file or its permissions; save it as UTF-8.";
    YAML_SYNTAX = "SBK0103":
        "a file is not YAML",
        "The text breaks the YAML grammar at the marked place. Tabs cannot indent, and a text with `: ` or ` #` inside needs quotes.",
        "Mend the marked line.";
    UNKNOWN_UPSTREAM = "SBK0104":
        "an asset reads something that no file declares",
        "The query, check or `depends_on` names a table that is neither an asset of the project nor declared as external.",
        "Correct the name, declare the asset, or list it under `external:` in `subak.yml`.";
    DUPLICATE_KEY = "SBK0105":
        "a key stands twice in one mapping",
        "YAML would keep one of the two values and drop the other without a word, so it is refused.",
        "Remove one of the two.";
    UNKNOWN_KEY = "SBK0106":
        "a key is not known here",
        "Nothing reads this key, so what it says would have no effect.",
        "Correct its spelling; the reference lists the keys that are known at this place.";
    MISSING_KEY = "SBK0107":
        "a required key is missing",
        "The declaration cannot mean anything without this key.",
        "Add the key.";
    WRONG_SHAPE = "SBK0108":
        "a value has the wrong shape",
        "A mapping stands where a list or a text is expected, or the other way round.",
        "Write the value in the expected shape.";
    INVALID_VALUE = "SBK0109":
        "a value cannot be read",
        "The text is no number, duration, boolean or name of the expected form. Only `true` and `false` are booleans: `yes`, `no`, `on` and `off` are texts.",
        "Write the value in the form that the message names.";
    UNKNOWN_WORD = "SBK0110":
        "a word is not one of those allowed here",
        "The setting takes one word out of a fixed list.",
        "Use one of the words that the message lists.";
    INVALID_ASSET_KEY = "SBK0111":
        "a name is no asset key",
        "Asset keys are segments of `a-z`, `0-9` and `_`, joined by dots. The key of a SQL asset or seed comes from its path below `assets/`.",
        "Rename the file, folder, stream or table.";
    DUPLICATE_ASSET = "SBK0112":
        "two declarations make one asset",
        "Both would write the same table, and each run would keep what came last.",
        "Rename or remove one of them.";
    CYCLE = "SBK0113":
        "assets read each other in a circle",
        "No order exists in which they could be brought up to date.",
        "Break the circle at one of the places that the message names.";
    UNKNOWN_CONNECTION = "SBK0114":
        "a connection is not declared",
        "The name stands neither under `connections:` in `subak.yml` nor in the profile.",
        "Correct the name or declare the connection.";
    UNKNOWN_CONNECTOR = "SBK0115":
        "a connection has an unknown type",
        "This build has no connector of that type.",
        "Use one of the types that the message lists.";
    LACKS_ABILITY = "SBK0116":
        "a connection cannot do what is asked of it",
        "A source must be readable, a destination writable, and a SQL asset needs a connection that runs SQL.",
        "Use another connection; `subak docs connectors` shows what each can do.";
    LITERAL_SECRET = "SBK0117":
        "a secret stands in the file as plain text",
        "Whoever can read the file or its history knows the secret.",
        "Write `${secret:NAME}` and keep the value in the environment as `SUBAK_SECRET_NAME`, or in a file under `.subak/secrets/`.";
    INVALID_REFERENCE = "SBK0118":
        "a reference is malformed",
        "References are `${NAME}`, `${NAME:-default}` and `${secret:NAME}`; `$$` stands for one dollar sign.",
        "Mend the reference.";
    MISSING_VARIABLE = "SBK0119":
        "an environment variable is not set",
        "The value refers to a variable that has no value and no default.",
        "Set the variable, or give a default: `${NAME:-default}`.";
    MISSING_SECRET = "SBK0120":
        "a secret has no value",
        "It is neither in the environment nor in a secrets file.",
        "Set `SUBAK_SECRET_NAME`, or write the value to `.subak/secrets/NAME` with mode 0600.";
    UNKNOWN_PROFILE = "SBK0121":
        "a profile is not declared",
        "`--profile` names an overlay that `subak.yml` does not have.",
        "Correct the name or declare the profile.";
    INVALID_TYPE = "SBK0122":
        "a column type is not known",
        "Types are logical names such as `text`, `bigint` or `decimal(18,2)`, whatever the system.",
        "Use one of the types that the message lists.";
    UNKNOWN_FILE = "SBK0123":
        "a file declares nothing",
        "A YAML file below `assets/` must hold `ingest:`; an empty one is probably a mistake.",
        "Declare something, or remove the file.";
    YAML_FEATURE = "SBK0124":
        "a YAML feature is not supported",
        "Custom tags, merge keys and documents that expand without bound are refused, because they make one file mean different things to different readers.",
        "Write the values out.";
    NO_STREAMS = "SBK0125":
        "an ingest declares no streams",
        "Nothing would be loaded. Streams whose name is a pattern are those that `subak discover --save` found and wrote beside the file.",
        "List at least one stream under `streams:`; where its name is a pattern, run `subak discover --save`.";
    WRONG_FOLDER = "SBK0126":
        "a file stands where nothing reads it",
        "Below `assets/` only `.sql`, `.yml` and `.csv` files are read; below `checks/` only `.sql` files.",
        "Move or rename the file.";
    INSECURE_PATH = "SBK0127":
        "a path leaves the project",
        "Paths in a project are relative to it, and `..` may not lead out of it.",
        "Use a path inside the project, or an absolute one through a variable: `${DATA_DIR}/file.csv`.";
    HEADER_UNTERMINATED = "SBK0201":
        "the header comment does not end",
        "A SQL file may begin with `/* subak`, and the comment must be closed with `*/`.",
        "Close the comment.";
    SQL_UNPARSED = "SBK0202":
        "the SQL cannot be read, and nothing says what it depends on",
        "Upstream assets are read from the SQL. This SQL is beyond our parser, which does not mean that it is wrong.",
        "List the assets that it reads under `depends_on:` in its header (`depends_on: []` if it reads none); the SQL then goes to the warehouse as it stands.";
    SQL_UNPARSED_NOTE = "SBK0203":
        "the SQL cannot be read; `depends_on` is trusted",
        "Upstream assets come from `depends_on` alone, and columns and their lineage are unknown for this asset.",
        "Nothing need be done. If the SQL is wrong the warehouse will say so.";
    SQL_SEVERAL = "SBK0204":
        "a file holds more than one statement",
        "An asset or check is one query, so that its result is what is stored.",
        "Split the file, or remove the other statements.";
    SQL_NOT_QUERY = "SBK0205":
        "the statement is not a query",
        "An asset or check is a `select` (or `with`, `values`, `from`); other statements would change the warehouse behind the plan's back.",
        "Write a query.";
    SQL_EMPTY = "SBK0206":
        "a file holds no SQL",
        "Nothing follows the header.",
        "Write a query, or remove the file.";
    TEMPLATE = "SBK0207":
        "a template cannot be rendered",
        "The text between `{{` and `}}` uses a name that does not exist, or breaks the template grammar.",
        "Use `ref('asset.key')`; see the guide on SQL assets.";
    OTHER_CONNECTION = "SBK0208":
        "an asset reads a table of another connection",
        "A query runs inside one system, and the upstream asset is stored in another one.",
        "Ingest the upstream asset into this connection, or run the query where its data is.";
    SELF_REFERENCE = "SBK0209":
        "an asset reads itself",
        "Its own table does not exist when it is made for the first time, and is replaced while it is read.",
        "Read from the upstream asset instead.";
    CHECK_COLUMNS = "SBK0210":
        "a check names no column",
        "`not_null` and `unique` need at least one column.",
        "Name the columns.";
    CHECK_DUPLICATE = "SBK0211":
        "an asset has one check twice",
        "Results are recorded by name, so two checks cannot share one.",
        "Remove one of them, or give it a `name:`.";
    MERGE_WITHOUT_KEY = "SBK0212":
        "merge needs a primary key",
        "Rows are matched by their key; without one nothing can be matched.",
        "Declare `primary_key:`, or use `mode: append` or `mode: replace`.";
    CURSOR_MISUSE = "SBK0213":
        "a cursor does not fit the write mode",
        "`replace` reads everything each time, so a cursor would make it lose the rows before it; a `lag` reads some rows twice, which only `merge` can absorb.",
        "Remove the cursor or the lag, or use `mode: merge`.";
    CHECK_READS_NOTHING = "SBK0214":
        "a standalone check reads no asset",
        "It would never be due, because it is evaluated when an asset that it reads is brought up to date.",
        "Read at least one asset, or list it under `depends_on:`.";
    TABLE_COLLISION = "SBK0215":
        "two assets would share one table",
        "Their keys differ, but the names of their tables in the destination do not.",
        "Rename one of them.";
    SEED_HEADER = "SBK0216":
        "a seed's header is unusable",
        "The first line of a seed names its columns; names must be present and different.",
        "Mend the first line of the file.";
    UNKNOWN_COLUMN = "SBK0217":
        "a column is not there",
        "The upstream query is known to have other columns.",
        "Correct the name.";
    SHAPE_MISUSE = "SBK0218":
        "settings do not go together",
        "One setting takes away what the other one needs, or has no effect beside it.",
        "Remove one of the two; the message says which.";
    TEST_INVALID = "SBK0219":
        "a test cannot be run",
        "It names an asset that is not there, gives rows that the asset does not read, or expects columns that it does not have.",
        "Correct the name at the marked place.";
    NAME_LINT = "SBK0220":
        "a name breaks the house rules",
        "The project declares under `lint:` how tables and columns are named, and this name does not match.",
        "Rename it, or change the rule.";
    TASK_UNKNOWN = "SBK0221":
        "a task needs one that is not there",
        "A task can need the tasks that stand beside it, in the same job or the same group.",
        "Correct the name, or let the group need it.";
    JOB_UNKNOWN = "SBK0222":
        "a sensor names a job that is not there",
        "What a sensor starts, and whose runs it may watch, are jobs of files below `jobs/`.",
        "Correct the name; `subak job list` shows the jobs.";
    CONDITION = "SBK0223":
        "a condition of `automation` cannot be read",
        "The text is none that says when an asset is brought up to date.",
        "Correct it; `subak docs automation` shows what conditions are made of.";
    DBT_MANIFEST = "SBK0224":
        "the manifest of a dbt project cannot be read",
        "The assets of a dbt project are those that `target/manifest.json` names, which dbt writes each time that it reads its project.",
        "Run `dbt parse` in the folder of the dbt project.";
    UNKNOWN_POOL = "SBK0225":
        "a pool is not declared",
        "A step takes slots of a pool that does not stand under `pools:` in `subak.yml`.",
        "Correct the name, or declare the pool.";
    SELECTION_SYNTAX = "SBK0230":
        "a selection cannot be read",
        "Selections are asset keys, `tag:`, `group:`, `owner:`, `path:`, `kind:` or `changed`, with `+` for upstream or downstream, joined by spaces (union), commas (intersection) and `--exclude`.",
        "Correct the selection.";
    SELECTION_EMPTY = "SBK0231":
        "a selection matches nothing",
        "No asset has this key, tag, group, owner, path or kind.",
        "Correct the word; `subak list` shows what exists.";
    UPSTREAM_MISSING = "SBK0232":
        "something upstream was never materialized",
        "The step reads an asset that no run has made yet, and the selection does not include it.",
        "Select what is upstream too: `subak run +KEY`.";
    CONNECT_OPEN = "SBK0301":
        "a connection cannot be opened",
        "The system is unreachable, the file cannot be opened, or it refused us.",
        "Mend what the cause names, then run again.";
    CONNECT_HELD = "SBK0302":
        "another process holds the file",
        "Embedded databases are opened by one process at a time, so that they cannot be damaged.",
        "Wait for that process or stop it, then run again.";
    READ_FAILED = "SBK0303":
        "a stream cannot be read",
        "The source failed while it was read.",
        "Mend what the cause names, then run again; nothing of this load was published.";
    WRITE_FAILED = "SBK0304":
        "a table cannot be written",
        "The destination failed while rows were staged or published.",
        "Mend what the cause names, then run again.";
    VALUE_MISFIT = "SBK0305":
        "a value does not fit its column's type",
        "The source holds a value that the declared type cannot hold exactly.",
        "Correct the value in the source, or declare a wider type (`text` holds everything).";
    COLUMN_MISSING = "SBK0306":
        "a declared column is not in the source",
        "`columns`, `primary_key` or `cursor` names a column that the stream does not have.",
        "Correct the name, or restore the column in the source.";
    NO_FILES = "SBK0307":
        "no file matches",
        "The pattern matches no file, and an empty read must not replace a full table.",
        "Correct the pattern, deliver the file, or set `if_no_files: skip`.";
    FILE_MALFORMED = "SBK0308":
        "a file breaks its format",
        "A line, record or block cannot be decoded. Nothing was published.",
        "Mend the file at the place that the message names, or declare its format.";
    SQL_FAILED = "SBK0309":
        "the warehouse refused the SQL",
        "The statement failed when it ran.",
        "Correct the SQL at the place that the cause names.";
    RESOURCE = "SBK0310":
        "disk, memory or another bound is used up",
        "The step could not go on without more room.",
        "Free some room or raise the bound, then run again.";
    STEP_FAILED = "SBK0311":
        "a step failed",
        "The message names the step, the attempt and the cause.",
        "Follow the help below the message, then resume the run.";
    CHECK_FAILED = "SBK0312":
        "a check failed",
        "Rows break a statement that the project makes about its data. When the check is blocking, readers still see the table as it was before.",
        "Look at the sample rows, mend the data or the check, then run again.";
    STEP_TIMEOUT = "SBK0313":
        "a step took longer than it may",
        "The attempt was stopped at its `timeout`.",
        "Find out why it is slow, or raise `timeout`.";
    STEP_CANCELED = "SBK0314":
        "a step was stopped",
        "Somebody asked the run to stop before the step was done.",
        "Resume the run when it should go on.";
    INTERNAL = "SBK0315":
        "a bug in Subak",
        "Something happened that our code rules out.",
        "Please report it with the text of the message; the run can be resumed.";
    KEY_TWICE = "SBK0316":
        "one key comes twice in a load",
        "Two rows of one load share a primary key, and nothing says which of them is right.",
        "Correct the source or the key.";
    SCHEMA_CHANGED = "SBK0317":
        "the source's columns no longer fit the table",
        "A column changed its type in a way that the table cannot hold exactly.",
        "Declare the type under `columns:`, or rebuild the table with `--full-refresh`.";
    KEY_NULL = "SBK0318":
        "a key is NULL",
        "A row without a key can never be matched, so each run would add it again.",
        "Correct the source, or choose another key.";
    UNBALANCED = "SBK0319":
        "the accounting of rows does not add up",
        "Rows read are not rows written + rejected + filtered. Nothing was published.",
        "Please report it; it is a bug of the connector or of Subak.";
    RUN_LOST = "SBK0320":
        "the process that held the run is gone",
        "It was killed, or the machine stopped. What was committed is kept; nothing else was published.",
        "Run the same command again, or resume the run.";
    REJECTS_EXCEEDED = "SBK0322":
        "too many rows were refused",
        "More rows than `rejects_max` allows did not fit their columns, so nothing was published.",
        "Correct the source or the declared types, or raise `rejects_max`.";
    TABLE_EMPTIED = "SBK0323":
        "a table is empty though its stream was read",
        "Somebody emptied the table, or put back an older copy. Reading on from the committed cursor would never bring the rows back.",
        "Read the stream again from its beginning with `--full-refresh`.";
    NOT_RECONCILED = "SBK0324":
        "source and destination differ",
        "`subak verify` compared every row and found differences; the source may also have changed since it was read.",
        "Bring the asset up to date and verify again; what still differs is listed by key.";
    TEST_FAILED = "SBK0325":
        "a test failed",
        "The rows that came out are not the rows that the test expects.",
        "Correct the query or the expectation.";
    TASK_VALUE = "SBK0326":
        "an expression of a task has no value",
        "A condition, a list or a template of the task reads something that the steps before it did not hand on.",
        "Look at the values with `subak run show`, and correct the expression.";
    VALUE_TOO_LARGE = "SBK0327":
        "the value of a task cannot be handed on",
        "It is no JSON, or larger than 64 KiB.",
        "Write the data to a table or a file, and hand on where that is.";
    PROGRAM_FAILED = "SBK0328":
        "a program failed",
        "It could not be started, ended with a code other than zero, or was ended by a signal.",
        "Read the last lines of its output, which stand behind the message; the whole output stands in the file that is named.";
    PIPES = "SBK0329":
        "a program reported in a way that is not understood",
        "Its messages are none of Dagster's Pipes, version 0.1.",
        "Use a client library of that version, or none.";
    REQUEST_REFUSED = "SBK0330":
        "a request was not answered as expected",
        "The status of the answer is none of those that count as success: `expect:` of the task, or any from 200 to 299.",
        "Read what the other side says; correct the request, or list the status under `expect:`.";
    PARTITION_NONE = "SBK0331":
        "there is no such partition",
        "The asset is cut into partitions, and none of them is meant, or has ended yet.",
        "Name one with `--partition`; `subak partition list KEY` shows them.";
    LOOK_UNUSABLE = "SBK0332":
        "a sensor cannot use what it sees",
        "The answer that a sensor watches has another form than it needs: rows without the cursor, an expression without a value, or too much at once.",
        "Correct the query, the expression or the program. What is new stays new until then.";
    REJECTED = "SBK0333":
        "a question was answered with no",
        "A person was asked whether the job may go on, and said no.",
        "Read why; start the job again when it may. `on_reject: continue` lets the job go on and tell.";
    STATE_OPEN = "SBK0401":
        "the state of the project cannot be opened",
        "The database below `.subak/` cannot be opened, or is damaged.",
        "Mend what the cause names. The newest backup stands beside it.";
    STATE_NEWER = "SBK0402":
        "the state was written by a newer Subak",
        "Reading it with this version could misread it.",
        "Use that version or a newer one, or restore the backup that was made before the upgrade.";
    PROJECT_HELD = "SBK0403":
        "another command works on this project",
        "Two commands that change data never run at once on one project.",
        "Wait for it (`--wait`), or stop the process that the message names.";
    UNKNOWN_RUN = "SBK0404":
        "there is no such run",
        "No run has this id, or more than one begins with it.",
        "`subak run list` shows the runs.";
    NOT_RESUMABLE = "SBK0405":
        "a run cannot be resumed",
        "It succeeded, or it is still running.",
        "Start a new run.";
    PROJECT_MOVED_ON = "SBK0406":
        "the project no longer declares what the run planned",
        "An asset or check of the plan was removed or renamed since.",
        "Start a new run.";
    STATE_FAILED = "SBK0407":
        "the state of the project cannot be read or written",
        "The database below `.subak/` failed, for example because the disk is full.",
        "Mend what the cause names, then run the same command again.";
    NETWORK_FILE_SYSTEM = "SBK0408":
        "the state stands on a network file system",
        "Locks on network file systems are not reliable, and a damaged log would lose the history of runs.",
        "Keep the project's `.subak` folder on a local disk.";
    FOLDER_NOT_EMPTY = "SBK0501":
        "a folder is not empty",
        "Files there could be overwritten.",
        "Name an empty or new folder.";
    USAGE = "SBK0502":
        "the command cannot be understood",
        "An argument is unknown, missing, or does not go with another one.",
        "`--help` after any command lists its arguments.";
    NOT_FOUND = "SBK0503":
        "there is nothing of that name",
        "No asset, check, command, topic or code has this name.",
        "Correct the name.";
    WRITE_OUTPUT = "SBK0504":
        "output cannot be written",
        "A file or the terminal refused the text.",
        "Mend what the cause names.";
    HTTP_UNKNOWN = "SBK0601":
        "there is nothing at a path of the server",
        "No route of the HTTP interface has this path and method.",
        "`subak docs http-api` lists the routes.";
    HTTP_HOST = "SBK0602":
        "a request calls the server by a name that is not its own",
        "The `Host` of the request is neither this machine nor a name that was given with `--host`. A page in a browser could speak to the server that way.",
        "Call it `localhost`, or start it with `--host NAME`.";
    HTTP_ACCESS = "SBK0603":
        "a request does not prove that it may do this",
        "There is no webhook of this name, or its secret is another.",
        "Send the secret as `Authorization: Bearer …`, or sign the body with it.";
    HTTP_BODY = "SBK0604":
        "a request cannot be read",
        "Its body is too long, did not arrive in time, or is not what it says it is.",
        "Correct what the message names, and send it again.";
    HTTP_FULL = "SBK0605":
        "a sensor has been told so much that nothing more is taken",
        "Deliveries wait until the sensor is looked after, and so many wait already that no more are kept.",
        "Find out with `subak automation show SENSOR` why they wait, and send it again later.";
    HTTP_SIGN_IN = "SBK0606":
        "nobody has signed in",
        "The request carries no session and no token, or one that has ended, was revoked, or belongs to somebody who was shut out.",
        "Sign in again, or send `Authorization: Bearer` with a token that `subak token create` has made.";
    HTTP_FORBIDDEN = "SBK0607":
        "somebody may not do this",
        "The role of whoever asks, or of the token that is sent, does not carry the permission that the request needs.",
        "Ask somebody with the role `admin` for it: `subak user set NAME --role ROLE`, or `--logs` and `--data` for what programs wrote and for rows.";
    HTTP_ORIGIN = "SBK0608":
        "a request comes from a page of somebody else",
        "A browser says that another site asks, or does not say which one does; such a request may be one that nobody here wants.",
        "Send it from the web app of this server, or from a program, with a token and without `Origin`.";
    HTTP_TOO_MANY = "SBK0609":
        "there are too many requests",
        "Somebody tries passwords, or a program asks more often than the server answers.",
        "Wait as long as `Retry-After` says. A password that was forgotten is set anew with `subak user set NAME --password-stdin`.";
    HTTP_CHANGED = "SBK0610":
        "something has changed meanwhile",
        "What was looked at before is not how things are now: a plan would do something else by now, or somebody was faster.",
        "Look again, and decide again.";
    HTTP_VALUE = "SBK0611":
        "a value cannot be taken",
        "A part of the query or of the body has a value that says nothing here.",
        "The message names it; `subak docs http-api` lists what can be said.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_sorted_and_unique() {
        assert!(ALL.windows(2).all(|pair| pair[0].id < pair[1].id));
    }

    #[test]
    fn find_ignores_case() {
        assert_eq!(find("sbk0104"), Some(&UNKNOWN_UPSTREAM));
        assert_eq!(find("SBK9999"), None);
    }
}
