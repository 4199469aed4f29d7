//! YAML as a tree in which every value knows its place. Scalars stay the text that was written, so `no`, `1e3` and `007` mean
//! what whoever reads them says, and nothing is guessed.

use std::ops::Range;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use subak_diag::{Diagnostic, codes};

/// Nodes that one file may have once aliases are expanded.
const NODE_COUNT_MAX: usize = 100_000;

/// Levels of nesting.
const DEPTH_MAX: usize = 64;

/// A value and its place, in bytes from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) span: Range<usize>,
    pub(crate) value: Value,
}

/// What stands at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`, not quoted.
    Null,
    /// Text as written, quotes removed.
    Scalar {
        text: String,
        is_plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Name, Node)>),
}

/// A key and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

impl Value {
    /// The word for this shape.
    pub(crate) fn shape(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar { .. } => "a text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Parses every document of a file. Problems go to `problems`; what could be read is returned all the same.
pub(crate) fn parse(path: &Arc<str>, text: &str, problems: &mut Vec<Diagnostic>) -> Vec<Node> {
    let mut reader = Reader {
        path,
        offsets: Offsets::new(text),
        length: text.len(),
        events: Vec::new(),
        next: 0,
        anchors: Vec::new(),
        node_count: 0,
        problems,
    };
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => reader.events.push((event.to_owned_event(), span)),
            Err(error) => {
                let start = reader.offsets.byte(error.marker().index()).min(text.len());
                let problem = Diagnostic::error(codes::YAML_SYNTAX, format!("this is not YAML: {}", error.info()));
                reader.problems.push(problem.at(path, start..(start + 1).min(text.len()), ""));
                return Vec::new();
            }
        }
    }
    reader.documents()
}

/// Characters to bytes: the parser counts characters.
struct Offsets(Option<Vec<usize>>);

impl Offsets {
    fn new(text: &str) -> Self {
        Self((!text.is_ascii()).then(|| text.char_indices().map(|(at, _)| at).chain([text.len()]).collect()))
    }

    fn byte(&self, character: usize) -> usize {
        match &self.0 {
            None => character,
            Some(offsets) => offsets.get(character).or(offsets.last()).copied().unwrap_or(0),
        }
    }
}

/// The events that matter, owned.
#[derive(Debug, Clone)]
enum Owned {
    Scalar { text: String, is_plain: bool, anchor: usize, is_tagged: bool },
    ListStart { anchor: usize, is_tagged: bool },
    MapStart { anchor: usize, is_tagged: bool },
    End,
    Alias(usize),
    DocumentStart,
    Other,
}

trait ToOwnedEvent {
    fn to_owned_event(&self) -> Owned;
}

impl ToOwnedEvent for Event<'_> {
    fn to_owned_event(&self) -> Owned {
        match self {
            Event::Scalar(text, style, anchor, tag) => Owned::Scalar {
                text: text.to_string(),
                is_plain: *style == ScalarStyle::Plain,
                anchor: *anchor,
                is_tagged: tag.is_some(),
            },
            Event::SequenceStart(anchor, tag) => Owned::ListStart { anchor: *anchor, is_tagged: tag.is_some() },
            Event::MappingStart(anchor, tag) => Owned::MapStart { anchor: *anchor, is_tagged: tag.is_some() },
            Event::SequenceEnd | Event::MappingEnd => Owned::End,
            Event::Alias(anchor) => Owned::Alias(*anchor),
            Event::DocumentStart(_) => Owned::DocumentStart,
            _ => Owned::Other,
        }
    }
}

struct Reader<'a> {
    path: &'a Arc<str>,
    offsets: Offsets,
    length: usize,
    events: Vec<(Owned, Span)>,
    next: usize,
    anchors: Vec<(usize, Node)>,
    node_count: usize,
    problems: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    fn documents(&mut self) -> Vec<Node> {
        let mut documents = Vec::new();
        while self.next < self.events.len() {
            if matches!(self.events[self.next].0, Owned::DocumentStart) {
                self.next += 1;
                self.anchors.clear();
                documents.extend(self.node(0));
            } else {
                self.next += 1;
            }
        }
        documents
    }

    fn span(&self, span: &Span) -> Range<usize> {
        let start = self.offsets.byte(span.start.index()).min(self.length);
        start..self.offsets.byte(span.end.index()).clamp(start, self.length)
    }

    fn refuse(&mut self, span: Range<usize>, message: &str) {
        self.problems.push(Diagnostic::error(codes::YAML_FEATURE, message).at(self.path, span, ""));
    }

    /// The node that begins at the next event; `None` when it was refused.
    fn node(&mut self, depth: usize) -> Option<Node> {
        let (event, span) = self.events.get(self.next)?.clone();
        self.next += 1;
        let span = self.span(&span);
        self.node_count += 1;
        if depth > DEPTH_MAX || self.node_count > NODE_COUNT_MAX {
            self.refuse(span, "the document is nested too deeply, or expands to too many values");
            self.next = self.events.len();
            return None;
        }
        let (anchor, is_tagged, value) = match event {
            Owned::Scalar { text, is_plain, anchor, is_tagged } => {
                let is_null = is_plain && matches!(text.as_str(), "" | "~" | "null");
                let value = if is_null { Value::Null } else { Value::Scalar { text, is_plain } };
                (anchor, is_tagged, value)
            }
            Owned::ListStart { anchor, is_tagged } => (anchor, is_tagged, self.list(depth)),
            Owned::MapStart { anchor, is_tagged } => (anchor, is_tagged, self.map(depth)),
            Owned::Alias(anchor) => return self.alias(anchor, span),
            Owned::End | Owned::DocumentStart | Owned::Other => return None,
        };
        if is_tagged {
            self.refuse(span.clone(), "a tag such as `!name` is not supported");
        }
        let node = Node { span, value };
        if anchor > 0 {
            self.anchors.push((anchor, node.clone()));
        }
        Some(node)
    }

    fn alias(&mut self, anchor: usize, span: Range<usize>) -> Option<Node> {
        let Some((_, node)) = self.anchors.iter().rev().find(|(known, _)| *known == anchor).cloned() else {
            self.refuse(span, "the alias refers to something that contains it, or to nothing");
            return None;
        };
        self.node_count += count(&node);
        if self.node_count > NODE_COUNT_MAX {
            self.refuse(span, "the document expands to too many values");
            self.next = self.events.len();
            return None;
        }
        Some(node)
    }

    fn is_at_end(&self) -> bool {
        self.events.get(self.next).is_none_or(|(event, _)| matches!(event, Owned::End))
    }

    fn list(&mut self, depth: usize) -> Value {
        let mut items = Vec::new();
        while !self.is_at_end() {
            items.extend(self.node(depth + 1));
        }
        self.next += 1;
        Value::List(items)
    }

    fn map(&mut self, depth: usize) -> Value {
        let mut entries: Vec<(Name, Node)> = Vec::new();
        while !self.is_at_end() {
            let key = self.node(depth + 1);
            let value = self.node(depth + 1);
            let (Some(key), Some(value)) = (key, value) else { continue };
            let text = match key.value {
                Value::Scalar { text, .. } => text,
                Value::Null => "null".to_owned(),
                Value::List(_) | Value::Map(_) => {
                    self.refuse(key.span, "a key must be a text");
                    continue;
                }
            };
            if text == "<<" {
                self.refuse(key.span, "merge keys (`<<`) are not supported");
                continue;
            }
            if let Some((first, _)) = entries.iter().find(|(name, _)| name.text == text) {
                let problem = Diagnostic::error(codes::DUPLICATE_KEY, format!("the key `{text}` stands here twice"));
                let problem = problem.at(self.path, key.span, "again").at(self.path, first.span.clone(), "first");
                self.problems.push(problem.help("remove one of the two"));
                continue;
            }
            entries.push((Name { text, span: key.span }, value));
        }
        self.next += 1;
        Value::Map(entries)
    }
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Scalar { .. } => 1,
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|(_, node)| count(node)).sum::<usize>(),
    }
}
