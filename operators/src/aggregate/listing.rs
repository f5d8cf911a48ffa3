//! Aggregates of the rows of a group in an order, or of its different rows: `array_agg`, `string_agg`, `first_value`, `last_value`,
//! `nth_value`, `median`, `percentile_cont`, and DISTINCT or a retracting input in those that have no smaller state for it.
//!
//! Always: a group is a multiset of rows (arguments, ORDER BY, identity) kept in that order, so a result is the same in any order of
//! arrival, and any row can leave again. Over input that only appends, `first_value`, `last_value` and `nth_value` keep no more rows than
//! they need. A group of over [`LIST_ROWS_MAX`] rows is an error. The argument is one struct; `Listing` says what its fields are.

use std::any::Any;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StructArray, UInt32Array, new_empty_array, new_null_array};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{SortOptions, cast, take};
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::row::{RowConverter, SortField};
use serde::{Deserialize, Serialize};
use tidemill_engine::error::{Error, Result};

use super::bag::{Bag, Bags};
use super::bytes::{self, Bytes};
use super::columns::{int64, list, list_column, list_type, required, typed, unlist};
use super::middle::{between, median};
use super::rows::visit;
use super::{Accumulator, Function, Spec, only_in, same};

/// The most different rows that a group may hold.
pub const LIST_ROWS_MAX: usize = 1_000_000;

/// What is made of the rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Finish {
    /// `array_agg`.
    Array,
    /// `string_agg`.
    Joined {
        /// What stands between two values.
        separator: String,
    },
    /// `first_value`.
    First,
    /// `last_value`.
    Last,
    /// `nth_value`; from the end if negative.
    Nth {
        /// From 1, or from -1.
        n: i64,
    },
    /// `median`.
    Median,
    /// `percentile_cont`.
    Percentile {
        /// The quantile asked for, 0 to 1.
        quantile: f64,
    },
    /// An aggregate without a smaller state for this call, over the rows held.
    Folded(Box<Function>),
}

/// How one ORDER BY field sorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// DESC.
    pub descending: bool,
    /// NULLS FIRST.
    pub nulls_first: bool,
}

/// A call whose argument is a struct of `arguments` arguments, then the ORDER BY fields, then perhaps the row's identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listing {
    /// What is made of the rows.
    pub finish: Finish,
    /// How many fields are arguments.
    pub arguments: usize,
    /// How the ORDER BY fields sort.
    pub order: Vec<Order>,
    /// The last three fields are the row's source, partition and offset, which the operator adds.
    pub identity: bool,
    /// Equal rows count once.
    pub distinct: bool,
    /// Rows whose first argument is NULL don't count.
    pub ignore_nulls: bool,
}

impl Listing {
    /// The name as written in SQL.
    pub fn name(&self) -> &'static str {
        match &self.finish {
            Finish::Array => "array_agg",
            Finish::Joined { .. } => "string_agg",
            Finish::First => "first_value",
            Finish::Last => "last_value",
            Finish::Nth { .. } => "nth_value",
            Finish::Median => "median",
            Finish::Percentile { .. } => "percentile_cont",
            Finish::Folded(function) => function.name(),
        }
    }

    /// How many rows are needed, and whether of the front.
    fn enough(&self) -> Option<(i64, bool)> {
        match self.finish {
            Finish::First => Some((1, true)),
            Finish::Last => Some((1, false)),
            Finish::Nth { n } => Some((n.saturating_abs(), n > 0)),
            _ => None,
        }
    }
}

pub(super) fn accumulator(spec: &Spec, listing: &Listing) -> Result<Box<dyn Accumulator>> {
    let DataType::Struct(fields) = spec.argument()? else { return Err(spec.refuse_input()) };
    let arguments: Vec<FieldRef> = fields.iter().take(listing.arguments).cloned().collect();
    let [first, ..] = arguments.as_slice() else { return Err(spec.refuse_input()) };
    let value = first.data_type();
    let fits = match &listing.finish {
        Finish::Array => matches!(&spec.output, DataType::List(item) if same_kind(item.data_type(), value)),
        Finish::Joined { .. } => bytes::is_bytes(value) && bytes::is_bytes(&spec.output),
        Finish::First | Finish::Last | Finish::Nth { .. } => same_kind(&spec.output, value),
        Finish::Median | Finish::Percentile { .. } => value.is_numeric() && spec.output == *value,
        // Refused by the aggregate itself if at all.
        Finish::Folded(function) => {
            drop(super::accumulator(&folded(function, &arguments, &spec.output))?);
            true
        }
    };
    spec.require_output(fits)?;
    let ordered = fields.iter().skip(listing.arguments).zip(&listing.order);
    let mut sort: Vec<SortField> = ordered
        .map(|(field, order)| {
            let options = SortOptions { descending: order.descending, nulls_first: order.nulls_first };
            SortField::new_with_options(field.data_type().clone(), options)
        })
        .collect();
    let rest = fields.iter().skip(listing.arguments + listing.order.len());
    let last = SortOptions { descending: false, nulls_first: false };
    sort.extend(rest.chain(&arguments).map(|field| SortField::new_with_options(field.data_type().clone(), last)));
    let converter = RowConverter::new(sort).map_err(|_| spec.refuse_input())?;
    let enough = if spec.retracts { None } else { listing.enough() };
    let (fields, listing) = (fields.clone(), listing.clone());
    Ok(Box::new(Listed { bags: Bags::default(), converter, fields, enough, listing, spec: spec.clone() }))
}

/// The same type but for unsigned numbers kept as BIGINT.
fn same_kind(output: &DataType, value: &DataType) -> bool {
    output == value || (*output == DataType::Int64 && *value == DataType::UInt64)
}

fn folded(function: &Function, arguments: &[FieldRef], output: &DataType) -> Spec {
    let input = match arguments {
        [one] => one.data_type().clone(),
        several => DataType::Struct(Fields::from(several.to_vec())),
    };
    Spec { function: function.clone(), input: Some(input), output: output.clone(), retracts: false }
}

/// A row: ORDER BY, identity and arguments, so encoded that bytes sort as rows do.
type Row = Box<[u8]>;

fn row_bytes(row: &Row) -> usize {
    row.len()
}

struct Listed {
    bags: Bags<Row>,
    converter: RowConverter,
    /// Of the argument.
    fields: Fields,
    enough: Option<(i64, bool)>,
    listing: Listing,
    spec: Spec,
}

impl Listed {
    fn fold(&mut self, groups: &[u32], rows: &ArrayRef, filter: Option<&BooleanArray>, weights: Option<&[i64]>) -> Result<()> {
        typed(rows, self.spec.argument()?)?;
        let columns = rows.as_struct().columns();
        let (arguments, others) = columns.split_at(self.listing.arguments.min(columns.len()));
        let encoded = self.converter.convert_columns(&[others, arguments].concat())?;
        let without_nulls = !matches!(self.listing.finish, Finish::Array | Finish::First | Finish::Last | Finish::Nth { .. });
        let skipped = if without_nulls { arguments.len() } else { usize::from(self.listing.ignore_nulls) };
        let nulls = arguments.iter().take(skipped).fold(None, |all, column| NullBuffer::union(all.as_ref(), column.nulls()));
        let (bags, enough, name) = (&mut self.bags, self.enough, self.listing.name());
        visit(groups, nulls.as_ref(), filter, weights, |row, group, weight| {
            let row = encoded.row(row);
            let row: &[u8] = row.data();
            bags.add(group, row, weight, row.len(), || row.into());
            if let Some((rows, front)) = enough {
                bags.shorten(group, rows, !front, row_bytes);
            }
            if bags.slots[group].len() > LIST_ROWS_MAX {
                return Err(Error::failed(format!(
                    "{name} over more than {LIST_ROWS_MAX} different rows of one group: GROUP BY more columns or a shorter window, or leave \
                     rows out with FILTER (WHERE …)"
                )));
            }
            Ok(())
        })
    }

    /// The rows' fields as columns: arguments first, as they came.
    fn decode<'a>(&'a self, rows: impl Iterator<Item = &'a Row>) -> Result<Vec<ArrayRef>> {
        let parser = self.converter.parser();
        let mut rows = rows.map(|row| parser.parse(row)).peekable();
        if rows.peek().is_none() {
            return Ok(self.fields.iter().map(|field| new_empty_array(field.data_type())).collect());
        }
        let mut columns = self.converter.convert_rows(rows)?;
        let others = self.fields.len() - self.listing.arguments.min(self.fields.len());
        let others = others.min(columns.len());
        columns.rotate_left(others);
        Ok(columns)
    }

    /// The first argument of one row a group, or NULL.
    fn values(&self, picked: &[Option<&Row>]) -> Result<ArrayRef> {
        let columns = self.decode(picked.iter().copied().flatten())?;
        let mut next = 0;
        let places: UInt32Array = picked
            .iter()
            .map(|row| {
                row.map(|_| {
                    next += 1;
                    next - 1
                })
            })
            .collect();
        let column = columns.first().ok_or_else(|| Error::failed("an aggregate lacks its argument"))?;
        if column.is_empty() { Ok(new_null_array(column.data_type(), picked.len())) } else { Ok(take(column, &places, None)?) }
    }

    fn bag(&self, group: u32) -> &Bag<Row> {
        &self.bags.slots[group as usize]
    }

    /// How often each row counts, in order.
    fn live(&self, group: u32) -> impl DoubleEndedIterator<Item = (&Row, usize)> {
        let distinct = self.listing.distinct;
        self.bag(group).iter().filter(|(_, count)| *count > 0).map(move |(row, count)| (row, if distinct { 1 } else { count as usize }))
    }

    fn count(&self, group: u32) -> usize {
        self.live(group).map(|(_, count)| count).sum()
    }

    /// The row at `place`, from 0.
    fn at(&self, group: u32, mut place: usize, from_front: bool) -> Option<&Row> {
        let mut holds = |(_, count): &(&Row, usize)| {
            let here = place < *count;
            place = place.saturating_sub(*count);
            here
        };
        let mut rows = self.live(group);
        if from_front { rows.find(&mut holds) } else { rows.rfind(&mut holds) }.map(|(row, _)| row)
    }

    fn nth(&self, groups: &[u32], n: i64) -> Result<ArrayRef> {
        let place = usize::try_from(n.saturating_abs() - 1).ok();
        let picked: Vec<Option<&Row>> = groups.iter().map(|group| self.at(*group, place?, n > 0)).collect();
        self.values(&picked)
    }

    /// Two values that enclose a quantile.
    fn around(&self, groups: &[u32], quantile: f64) -> Result<[ArrayRef; 2]> {
        let side = |up: bool| {
            let picked: Vec<Option<&Row>> = groups
                .iter()
                .map(|group| {
                    let place = place_of(self.count(*group), quantile)?;
                    self.at(*group, if up { place.ceil() } else { place.floor() } as usize, true)
                })
                .collect();
            self.values(&picked)
        };
        Ok([side(false)?, side(true)?])
    }

    /// All rows of all groups as often as they count: arguments, and how many are each group's.
    fn every(&self, groups: &[u32]) -> Result<(Vec<ArrayRef>, Vec<usize>)> {
        let lengths = groups.iter().map(|group| self.count(*group)).collect();
        let rows = groups.iter().flat_map(|group| self.live(*group).flat_map(|(row, count)| std::iter::repeat_n(row, count)));
        Ok((self.decode(rows)?, lengths))
    }

    fn arrays(&self, groups: &[u32]) -> Result<ArrayRef> {
        let (columns, lengths) = self.every(groups)?;
        let items = columns.into_iter().next().ok_or_else(|| Error::failed("an aggregate lacks its argument"))?;
        let DataType::List(field) = &self.spec.output else { return Err(self.spec.refuse_input()) };
        let items = if items.data_type() == field.data_type() { items } else { cast(&items, field.data_type())? };
        if i32::try_from(items.len()).is_err() {
            return Err(Error::failed("array_agg: over 2^31 values in the results of one tick"));
        }
        let some: NullBuffer = lengths.iter().map(|length| *length > 0).collect::<Vec<bool>>().into();
        Ok(Arc::new(ListArray::try_new(Arc::clone(field), OffsetBuffer::from_lengths(lengths), items, Some(some))?))
    }

    fn joined(&self, groups: &[u32], separator: &str) -> Result<ArrayRef> {
        let (columns, lengths) = self.every(groups)?;
        let items = columns.into_iter().next().ok_or_else(|| Error::failed("an aggregate lacks its argument"))?;
        let texts = Bytes::of(&items)?;
        let mut row = 0;
        let joined: Vec<Option<Vec<u8>>> = lengths
            .iter()
            .map(|length| {
                let parts: Vec<&[u8]> = (row..row + length).map(|row| texts.get(row)).collect();
                row += length;
                (*length > 0).then(|| parts.join(separator.as_bytes()))
            })
            .collect();
        bytes::build(&self.spec.output, joined.iter().map(Option::as_deref))
    }

    fn folded(&self, function: &Function, groups: &[u32]) -> Result<ArrayRef> {
        let fields: Vec<FieldRef> = self.fields.iter().take(self.listing.arguments).cloned().collect();
        let mut inner = super::accumulator(&folded(function, &fields, &self.spec.output))?;
        inner.resize(groups.len());
        let (mut slots, mut weights, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        for (slot, group) in (0..).zip(groups) {
            for (row, count) in self.live(*group) {
                slots.push(slot);
                weights.push(count as i64);
                rows.push(row);
            }
        }
        let mut columns = self.decode(rows.into_iter())?;
        columns.truncate(fields.len());
        let argument: ArrayRef = match columns.as_slice() {
            [one] => Arc::clone(one),
            _ => Arc::new(StructArray::try_new(Fields::from(fields), columns, None)?),
        };
        inner.update(&slots, Some(&argument), None, Some(&weights))?;
        inner.result(&(0..).take(groups.len()).collect::<Vec<u32>>())
    }
}

/// Where a quantile lies among `count` values, from 0.
fn place_of(count: usize, quantile: f64) -> Option<f64> {
    count.checked_sub(1).map(|last| quantile * last as f64)
}

impl Accumulator for Listed {
    fn resize(&mut self, groups: usize) {
        self.bags.resize(groups);
    }

    fn clear(&mut self, group: usize) {
        self.bags.clear(group, row_bytes);
    }

    fn update(
        &mut self,
        groups: &[u32],
        argument: Option<&ArrayRef>,
        filter: Option<&BooleanArray>,
        weights: Option<&[i64]>,
    ) -> Result<()> {
        self.fold(groups, required(argument)?, filter, weights)
    }

    fn state_types(&self) -> Vec<(&'static str, DataType)> {
        vec![("rows", list_type(&DataType::Struct(self.fields.clone()))), ("counts", list_type(&DataType::Int64))]
    }

    fn state(&self, groups: &[u32]) -> Result<Vec<ArrayRef>> {
        let bags = || groups.iter().map(|group| self.bag(*group));
        let lengths: Vec<usize> = bags().map(Bag::len).collect();
        let columns = self.decode(bags().flat_map(|bag| bag.iter().map(|(row, _)| row)))?;
        let counts = int64(bags().flat_map(|bag| bag.iter().map(|(_, count)| count)));
        let rows = Arc::new(StructArray::try_new(self.fields.clone(), columns, None)?);
        Ok(vec![list(rows, lengths.clone())?, list(counts, lengths)?])
    }

    fn merge(&mut self, groups: &[u32], state: &[ArrayRef], sign: i64) -> Result<()> {
        if !self.invertible() {
            only_in(sign, &self.spec.function)?;
        }
        let rows = groups.len();
        let (groups, values, weights) = unlist(groups, list_column(state, 0, rows)?, Some(list_column(state, 1, rows)?), sign)?;
        self.fold(&groups, &values, None, weights.as_deref())
    }

    fn merge_from(&mut self, to: &[u32], other: &dyn Accumulator, from: &[u32], sign: i64) -> Result<()> {
        if !self.invertible() {
            only_in(sign, &self.spec.function)?;
        }
        let other = same::<Self>(other)?;
        for (&to, &from) in to.iter().zip(from) {
            for (row, count) in other.bag(from).iter() {
                self.bags.add(to as usize, row.as_ref(), sign * count, row.len(), || row.clone());
            }
            if let Some((rows, front)) = self.enough {
                self.bags.shorten(to as usize, rows, !front, row_bytes);
            }
        }
        Ok(())
    }

    fn invertible(&self) -> bool {
        self.enough.is_none()
    }

    fn result(&self, groups: &[u32]) -> Result<ArrayRef> {
        let result = match &self.listing.finish {
            Finish::Array => self.arrays(groups)?,
            Finish::Joined { separator } => self.joined(groups, separator)?,
            Finish::First => self.nth(groups, 1)?,
            Finish::Last => self.nth(groups, -1)?,
            Finish::Nth { n } => self.nth(groups, *n)?,
            Finish::Median => {
                let [low, high] = self.around(groups, 0.5)?;
                median(&low, &high)?
            }
            Finish::Percentile { quantile } => {
                let [low, high] = self.around(groups, *quantile)?;
                let parts = groups.iter().map(|group| place_of(self.count(*group), *quantile).map_or(0.0, f64::fract));
                between(&low, &high, parts)?
            }
            Finish::Folded(function) => self.folded(function, groups)?,
        };
        if *result.data_type() == self.spec.output { Ok(result) } else { Ok(cast(&result, &self.spec.output)?) }
    }

    fn bytes(&self) -> usize {
        self.bags.bytes()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
