//! What the columns want, as a tree of the object keys on the way to them.
//!
//! A node stands for one place in a record. It has *uses* (columns, fields of STRUCTs, elements of lists that take the value there)
//! and children by key. Every use owns one slot, numbered so that the slots under a node are one range: forgetting what an earlier
//! duplicate key left behind is one fill. The tree never changes after it is built. Nothing here sees a record. Built by the decoder.

use super::{Column, TEXT_TYPE, TimeUnitOption};
use arrow::datatypes::{DataType, Field, TimeUnit};
use std::collections::HashMap;
use std::ops::Range;
use tidemill_engine::error::{Error, Result};

/// Metadata key of an arrow `Field` inside a STRUCT or list: the digits (0 to 6) of a second its TIMESTAMP holds.
pub const TIMESTAMP_DIGITS_KEY: &str = "tidemill.timestamp_digits";

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Decimal { precision: u32, scale: u32 },
    Text,
    Bytes,
    Date,
    Timestamp { digits: u32, unit: TimeUnitOption },
    Struct,
    List { element: usize },
}

impl Kind {
    /// The SQL name, for messages.
    pub(super) fn sql(self) -> String {
        match self {
            Self::Bool => "BOOLEAN".into(),
            Self::Int16 => "SMALLINT".into(),
            Self::Int32 => "INT".into(),
            Self::Int64 => "BIGINT".into(),
            Self::Float32 => "REAL".into(),
            Self::Float64 => "DOUBLE".into(),
            Self::Decimal { precision, scale } => format!("DECIMAL({precision}, {scale})"),
            Self::Text => "VARCHAR".into(),
            Self::Bytes => "VARBINARY".into(),
            Self::Date => "DATE".into(),
            Self::Timestamp { digits, .. } => format!("TIMESTAMP({digits})"),
            Self::Struct => "STRUCT".into(),
            Self::List { .. } => "ARRAY".into(),
        }
    }
}

/// Somebody who wants the value of a place. Its index is its slot.
#[derive(Debug)]
pub(super) struct Use {
    pub kind: Kind,
    /// How messages call it: `"meta"['ip']`.
    pub label: String,
    /// The uses of a STRUCT's fields in order, or of a list's elements.
    pub parts: Vec<usize>,
}

/// One place in a record.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// The slots of the value itself.
    pub uses: Range<usize>,
    /// The slots of everything inside the value.
    pub below: Range<usize>,
    /// Somebody looks inside if the value is an object.
    pub object: bool,
    children: HashMap<Box<[u8]>, usize>,
}

impl Node {
    pub(super) fn child(&self, key: &[u8]) -> Option<usize> {
        self.children.get(key).copied()
    }
}

/// The tree. Node 0 is the record.
#[derive(Debug)]
pub(super) struct Plan {
    pub nodes: Vec<Node>,
    pub uses: Vec<Use>,
    /// The use of each column.
    pub columns: Vec<usize>,
}

/// While the tree grows, uses are numbered as they come.
#[derive(Default)]
struct Growing {
    nodes: Vec<GrowingNode>,
    uses: Vec<Use>,
}

#[derive(Default)]
struct GrowingNode {
    uses: Vec<usize>,
    children: Vec<(String, usize)>,
}

impl Plan {
    /// The tree for `columns`, `digits` being those of each column's TIMESTAMPs.
    pub(super) fn new(columns: &[Column], digits: &[u32]) -> Result<Self> {
        let mut growing = Growing { nodes: vec![GrowingNode::default()], uses: Vec::new() };
        let mut roots = Vec::with_capacity(columns.len());
        for (column, digits) in columns.iter().zip(digits) {
            let label = format!("{:?}", column.name);
            if column.path.is_empty() {
                return Err(Error::refused(format!("column {label}: its JSON path has no key")));
            }
            let node = column.path.iter().fold(0, |node, key| growing.child(node, key));
            let found = growing.claim(node, &column.data_type, column.unit, *digits, label.clone());
            roots.push(found.map_err(|error| error.context(format!("column {label}")))?);
        }
        Ok(growing.number(&roots))
    }
}

impl Growing {
    fn child(&mut self, node: usize, key: &str) -> usize {
        let known = self.nodes.get(node).and_then(|parent| parent.children.iter().find(|(name, _)| name == key));
        if let Some((_, child)) = known {
            return *child;
        }
        let child = self.add_node();
        if let Some(parent) = self.nodes.get_mut(node) {
            parent.children.push((key.to_string(), child));
        }
        child
    }

    fn add_node(&mut self) -> usize {
        self.nodes.push(GrowingNode::default());
        self.nodes.len() - 1
    }

    /// Lets a use of `data_type` have the value of `node`; the use.
    fn claim(&mut self, node: usize, data_type: &DataType, unit: TimeUnitOption, digits: u32, label: String) -> Result<usize> {
        let mut parts = Vec::new();
        let kind = match data_type {
            DataType::Boolean => Kind::Bool,
            DataType::Int16 => Kind::Int16,
            DataType::Int32 => Kind::Int32,
            DataType::Int64 => Kind::Int64,
            DataType::Float32 => Kind::Float32,
            DataType::Float64 => Kind::Float64,
            DataType::Decimal128(precision, scale) => match u32::try_from(*scale) {
                Ok(scale) if (1..=38).contains(precision) && scale <= u32::from(*precision) => {
                    Kind::Decimal { precision: u32::from(*precision), scale }
                }
                _ => {
                    return Err(Error::refused(format!(
                        "DECIMAL({precision}, {scale}) needs 1 to 38 digits, at most all of them after the point"
                    )));
                }
            },
            text if *text == TEXT_TYPE => Kind::Text,
            DataType::Binary => Kind::Bytes,
            DataType::Date32 => Kind::Date,
            DataType::Timestamp(TimeUnit::Microsecond, None) => Kind::Timestamp { digits, unit },
            DataType::Struct(fields) => {
                for field in fields {
                    let child = self.child(node, field.name());
                    parts.push(self.claim_field(child, field, unit, digits, format!("{label}['{}']", field.name()))?);
                }
                Kind::Struct
            }
            DataType::List(field) => {
                let element = self.add_node();
                parts.push(self.claim_field(element, field, unit, digits, format!("{label}[]"))?);
                Kind::List { element }
            }
            other => return Err(Error::refused(format!("JSON is not read into the type {other}"))),
        };
        let index = self.uses.len();
        self.uses.push(Use { kind, label, parts });
        if let Some(place) = self.nodes.get_mut(node) {
            place.uses.push(index);
        }
        Ok(index)
    }

    fn claim_field(&mut self, node: usize, field: &Field, unit: TimeUnitOption, digits: u32, label: String) -> Result<usize> {
        if !field.is_nullable() {
            return Err(Error::refused(format!("{label}: what is inside a STRUCT or a list is always nullable")));
        }
        let digits = match field.metadata().get(TIMESTAMP_DIGITS_KEY) {
            Some(text) => text
                .parse()
                .ok()
                .filter(|own| *own <= 6)
                .ok_or_else(|| Error::refused(format!("{label}: a TIMESTAMP has 0 to 6 digits")))?,
            None => digits,
        };
        self.claim(node, field.data_type(), unit, digits, label)
    }

    /// Gives the uses their final numbers.
    fn number(self, roots: &[usize]) -> Plan {
        let mut order = Vec::with_capacity(self.uses.len());
        let mut nodes: Vec<Node> = self.nodes.iter().map(|_| Node::default()).collect();
        self.visit(0, &mut order, &mut nodes);
        let mut new_of = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            if let Some(place) = new_of.get_mut(*old) {
                *place = new;
            }
        }
        let renumber = |old: &usize| new_of.get(*old).copied().unwrap_or(0);
        let mut uses: Vec<(usize, Use)> = self
            .uses
            .into_iter()
            .enumerate()
            .map(|(old, mut one)| {
                one.parts = one.parts.iter().map(renumber).collect();
                (renumber(&old), one)
            })
            .collect();
        uses.sort_by_key(|(new, _)| *new);
        Plan { nodes, uses: uses.into_iter().map(|(_, one)| one).collect(), columns: roots.iter().map(renumber).collect() }
    }

    /// Depth first: a node's own uses, then all inside it, elements of lists included.
    fn visit(&self, node: usize, order: &mut Vec<usize>, nodes: &mut [Node]) {
        let Some(from) = self.nodes.get(node) else { return };
        let start = order.len();
        order.extend_from_slice(&from.uses);
        let inside = order.len();
        let mut has_struct = false;
        for one in &from.uses {
            match self.uses.get(*one).map(|found| found.kind) {
                Some(Kind::List { element }) => self.visit(element, order, nodes),
                Some(Kind::Struct) => has_struct = true,
                _ => {}
            }
        }
        for (_, child) in &from.children {
            self.visit(*child, order, nodes);
        }
        if let Some(to) = nodes.get_mut(node) {
            *to = Node {
                uses: start..inside,
                below: inside..order.len(),
                object: has_struct || !from.children.is_empty(),
                children: from.children.iter().map(|(key, child)| (key.as_bytes().into(), *child)).collect(),
            };
        }
    }
}

/// What to do with the value of a place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target {
    /// Nobody wants it: check it.
    Skip,
    /// The use with this number takes it as it is.
    Leaf(u32),
    /// Several uses take it, or somebody looks inside: the node with this number.
    Branch(u32),
}

impl Plan {
    pub(super) fn target(&self, node: usize) -> Target {
        let Some(place) = self.nodes.get(node) else { return Target::Skip };
        if place.uses.len() == 1 && !place.object { Target::Leaf(place.uses.start as u32) } else { Target::Branch(node as u32) }
    }
}
