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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

impl Field {
    /// A key.
    pub const fn new(name: &'static str, kind: FieldKind, is_required: bool, doc: &'static str) -> Self {
        Self { name, kind, is_required, doc }
    }

    /// A key that may be left out.
    pub const fn optional(name: &'static str, kind: FieldKind, doc: &'static str) -> Self {
        Self::new(name, kind, false, doc)
    }
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
    /// A mapping with these keys. A value in it goes by both names with a point between them: `auth.type`.
    Map(&'static [Field]),
    /// A mapping from free names to texts, which go by both names as well: `headers.Accept`.
    Texts,
}

/// The field that the value of this name belongs to; names inside mappings are `outer.inner`.
pub fn find_field<'f>(fields: &'f [Field], name: &str) -> Option<&'f Field> {
    let (outer, inner) = name.split_once('.').map_or((name, None), |(outer, inner)| (outer, Some(inner)));
    let field = fields.iter().find(|field| field.name == outer)?;
    match (field.kind, inner) {
        (FieldKind::Map(fields), Some(inner)) => find_field(fields, inner),
        (FieldKind::Texts, Some(_)) => Some(field),
        (_, None) => Some(field),
        _ => None,
    }
}
