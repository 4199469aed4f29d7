//! What a connector can be configured with, as data: validation, documentation and the editor schema read the same table.

/// The keys that a connection of one kind knows, and the keys that each of its streams knows.
#[derive(Debug, Clone, Copy)]
pub struct ConfigSchema {
    /// Keys of the connection, besides `type`.
    pub connection: &'static [Field],
    /// Keys of a stream that is read from it, besides those that every stream has.
    pub stream: &'static [Field],
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// What values it takes.
    pub kind: FieldKind,
    /// Whether it must be there.
    pub is_required: bool,
    /// What it means, one or two sentences, with its default.
    pub doc: &'static str,
}

/// What values a key takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// Any text.
    Text,
    /// A path; relative ones start at the project's folder.
    Path,
    /// A whole number, zero or more.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A text that must not show; a literal draws a warning.
    Secret,
    /// One of these words.
    Word(&'static [&'static str]),
}
