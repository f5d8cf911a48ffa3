//! Aggregates of lists against sorted vectors, in any order and under any partition; all comparisons of states by bytes.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, ListArray, StringViewArray, StructArray};
use arrow::datatypes::{DataType, Decimal128Type, Field, Fields, Float64Type, Int64Type};

use super::{Accumulator, Finish, Function, Listing, Order, Pair, Spec, accumulator};

/// Source rows: a group, a value, what to order by, and the offset.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    group: u32,
    value: Option<i64>,
    by: Option<i64>,
    offset: i64,
    weight: i64,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (super::hash::hash_u64(self.0) % bound as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

fn text(value: i64) -> String {
    format!("v{value}")
}

/// A value, the sort column and the identity.
fn fields(value: DataType) -> Fields {
    let named =
        [("x", value), ("by", DataType::Int64), ("source", DataType::Int64), ("partition", DataType::Int64), ("offset", DataType::Int64)];
    named.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect()
}

fn column(rows: &[Row], data_type: &DataType) -> ArrayRef {
    let values = rows.iter().map(|row| row.value);
    match data_type {
        DataType::Utf8View => Arc::new(values.map(|value| value.map(text)).collect::<StringViewArray>()),
        DataType::Float64 => Arc::new(values.map(|value| value.map(|value| value as f64 / 4.0)).collect::<Float64Array>()),
        DataType::Decimal128(digits, scale) => {
            let values: Decimal128Array = values.map(|value| value.map(i128::from)).collect();
            Arc::new(values.with_precision_and_scale(*digits, *scale).unwrap())
        }
        _ => Arc::new(values.collect::<Int64Array>()),
    }
}

fn feed(state: &mut dyn Accumulator, spec: &Spec, rows: &[Row]) {
    let groups: Vec<u32> = rows.iter().map(|row| row.group).collect();
    let weights: Vec<i64> = rows.iter().map(|row| row.weight).collect();
    let Some(DataType::Struct(fields)) = &spec.input else { panic!("{spec:?}") };
    let ints = |value: &dyn Fn(&Row) -> Option<i64>| Arc::new(rows.iter().map(value).collect::<Int64Array>()) as ArrayRef;
    let all = [
        column(rows, fields[0].data_type()),
        ints(&|row| row.by),
        ints(&|_| Some(0)),
        ints(&|row| Some(row.offset % 2)),
        ints(&|row| Some(row.offset)),
    ];
    let columns = all.into_iter().take(fields.len()).collect();
    let argument: ArrayRef = Arc::new(StructArray::new(fields.clone(), columns, None));
    state.update(&groups, Some(&argument), None, Some(&weights)).unwrap();
}

fn fresh(spec: &Spec, groups: usize) -> Box<dyn Accumulator> {
    let mut state = accumulator(spec).unwrap();
    state.resize(groups);
    state
}

/// State columns, then the result.
fn all(state: &dyn Accumulator, groups: &[u32]) -> Vec<ArrayRef> {
    let mut columns = state.state(groups).unwrap();
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    assert_eq!(types, state.state_types().into_iter().map(|(_, data_type)| data_type).collect::<Vec<_>>());
    columns.push(state.result(groups).unwrap());
    columns
}

/// A cell of a result as text.
fn shown(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "-".to_owned();
    }
    match array.data_type() {
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).to_string(),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().value(row).to_string(),
        DataType::Utf8View => array.as_string_view().value(row).to_owned(),
        DataType::LargeUtf8 => array.as_string::<i64>().value(row).to_owned(),
        _ => {
            let lists: &ListArray = array.as_list();
            let items = lists.value(row);
            (0..items.len()).map(|item| shown(&items, item)).collect::<Vec<_>>().join(",")
        }
    }
}

/// What the rows of a group must give, by definition.
fn expected(listing: &Listing, value_type: &DataType, rows: &[Row]) -> String {
    let mut rows: Vec<&Row> = rows.iter().collect();
    if listing.ignore_nulls || !matches!(listing.finish, Finish::Array | Finish::First | Finish::Last | Finish::Nth { .. }) {
        rows.retain(|row| row.value.is_some());
    }
    let nulls = |a: Option<i64>, b: Option<i64>, first: bool, descending: bool| match (a, b) {
        (None, None) => Ordering::Equal,
        (None, _) => {
            if first {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (_, None) => {
            if first {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (Some(a), Some(b)) if descending => b.cmp(&a),
        (Some(a), Some(b)) => a.cmp(&b),
    };
    rows.sort_by(|a, b| {
        let given = listing.order.first().map_or(Ordering::Equal, |order| nulls(a.by, b.by, order.nulls_first, order.descending));
        let identity = if listing.identity { (a.offset % 2, a.offset).cmp(&(b.offset % 2, b.offset)) } else { Ordering::Equal };
        given.then(identity).then_with(|| match value_type {
            DataType::Utf8View => nulls(None, None, false, false).then_with(|| match (a.value, b.value) {
                (Some(a), Some(b)) => text(a).cmp(&text(b)),
                (a, b) => nulls(a, b, false, false),
            }),
            _ => nulls(a.value, b.value, false, false),
        })
    });
    let mut values: Vec<Option<i64>> = rows.iter().map(|row| row.value).collect();
    if listing.distinct {
        values.dedup();
    }
    let cell = |value: Option<i64>| match (value, value_type) {
        (None, _) => "-".to_owned(),
        (Some(value), DataType::Utf8View) => text(value),
        (Some(value), DataType::Float64) => format!("{:?}", value as f64 / 4.0),
        (Some(value), _) => value.to_string(),
    };
    let at = |place: Option<usize>| place.and_then(|place| values.get(place)).map_or("-".to_owned(), |value| cell(*value));
    let whole: Vec<i64> = values.iter().copied().flatten().collect();
    if values.is_empty() {
        return "-".to_owned();
    }
    match &listing.finish {
        Finish::Array => values.iter().map(|value| cell(*value)).collect::<Vec<_>>().join(","),
        Finish::Joined { separator } => values.iter().map(|value| cell(*value)).collect::<Vec<_>>().join(separator),
        Finish::First => at(Some(0)),
        Finish::Last => at(values.len().checked_sub(1)),
        Finish::Nth { n } if *n > 0 => at(Some(*n as usize - 1)),
        Finish::Nth { n } => at(values.len().checked_sub(n.unsigned_abs() as usize)),
        Finish::Median | Finish::Percentile { .. } => {
            let quantile = if let Finish::Percentile { quantile } = listing.finish { quantile } else { 0.5 };
            let place = quantile * (whole.len() - 1) as f64;
            let (low, high) = (whole[place.floor() as usize], whole[place.ceil() as usize]);
            match value_type {
                DataType::Float64 => {
                    let (low, high, part) = (low as f64 / 4.0, high as f64 / 4.0, place.fract());
                    let between = low * (1.0 - part) + high * part;
                    format!("{:?}", if part == 0.0 || low == high { low } else { between })
                }
                _ => ((low + high) / 2).to_string(),
            }
        }
        Finish::Folded(function) => match function.as_ref() {
            Function::BitAnd => whole.iter().fold(-1, |all, value| all & value).to_string(),
            Function::BitOr => whole.iter().fold(0, |all, value| all | value).to_string(),
            _ => whole.iter().fold(0, |all, value| all ^ value).to_string(),
        },
    }
}

fn check(listing: &Listing, value_type: &DataType, output: &DataType, retracts: bool, seed: u64) {
    let mut random = Random(seed);
    let groups = [1, 3, 20][random.below(3)];
    let count = [0, 4, 60, 700][random.below(4)];
    let spread = [3, 1000][random.below(2)];
    let mut input = fields(value_type.clone()).to_vec();
    input.truncate(1 + listing.order.len() + 3 * usize::from(listing.identity));
    let spec = Spec {
        function: Function::Listing(listing.clone()),
        input: Some(DataType::Struct(input.into())),
        output: output.clone(),
        retracts,
    };
    let mut rows: Vec<Row> = (0..count)
        .map(|offset| Row {
            group: random.below(groups) as u32,
            value: (random.below(6) > 0).then(|| random.below(spread) as i64 - 2),
            by: (random.below(6) > 0).then(|| random.below(4) as i64),
            offset,
            weight: 1,
        })
        .collect();
    let mut kept = rows.clone();
    if retracts {
        random.shuffle(&mut kept);
        let gone = random.below(kept.len() + 1);
        rows.extend(kept.drain(..gone).map(|row| Row { weight: -1, ..row }));
    }
    let every: Vec<u32> = (0..groups as u32).collect();
    let mut state = fresh(&spec, groups);
    feed(state.as_mut(), &spec, &rows);
    let first = all(state.as_ref(), &every);
    for group in &every {
        let of: Vec<Row> = kept.iter().filter(|row| row.group == *group).cloned().collect();
        let found = shown(first.last().unwrap(), *group as usize);
        assert_eq!(found, expected(listing, value_type, &of), "{spec:?} seed {seed} group {group}");
    }
    // Any order, any batches, any partition, both ways of merging.
    random.shuffle(&mut rows);
    let (mut other, mut encoded, mut direct) = (fresh(&spec, groups), fresh(&spec, groups), fresh(&spec, groups));
    for part in rows.chunks(1 + random.below(50)) {
        feed(other.as_mut(), &spec, part);
        let mut partial = fresh(&spec, groups);
        feed(partial.as_mut(), &spec, part);
        encoded.merge(&every, &partial.state(&every).unwrap(), 1).unwrap();
        direct.merge_from(&every, partial.as_ref(), &every, 1).unwrap();
    }
    for state in [&other, &encoded, &direct] {
        assert_eq!(all(state.as_ref(), &every), first, "{spec:?} seed {seed}");
    }
    every.iter().for_each(|group| other.clear(*group as usize));
    assert_eq!(all(other.as_ref(), &every), all(fresh(&spec, groups).as_ref(), &every));
    if state.invertible() {
        let extra = rows.len() / 2;
        let mut partial = fresh(&spec, groups);
        feed(partial.as_mut(), &spec, &rows[..extra]);
        state.merge_from(&every, partial.as_ref(), &every, 1).unwrap();
        state.merge(&every, &partial.state(&every).unwrap(), -1).unwrap();
        assert_eq!(all(state.as_ref(), &every), first, "{spec:?} seed {seed}: taken out");
    }
}

fn listing(finish: Finish) -> Listing {
    Listing { finish, arguments: 1, order: Vec::new(), identity: false, distinct: false, ignore_nulls: false }
}

fn item(data_type: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(data_type, true)))
}

/// With and without ORDER BY, IGNORE NULLS and retractions.
fn check_ordered(finish: Finish, value: &DataType, output: &DataType) {
    for (descending, nulls_first, ignore_nulls, retracts) in
        [(false, false, false, false), (true, true, false, true), (true, false, true, false), (false, true, true, true)]
    {
        for ordered in [true, false] {
            let order = if ordered { vec![Order { descending, nulls_first }] } else { Vec::new() };
            // Without ORDER BY the identity stands where the sort column would.
            let listing = Listing { order, identity: ordered, ignore_nulls, ..listing(finish.clone()) };
            (0..8).for_each(|seed| check(&listing, value, output, retracts, seed));
        }
    }
}

#[test]
fn lists() {
    for value in [DataType::Int64, DataType::Utf8View] {
        check_ordered(Finish::Array, &value, &item(value.clone()));
        let distinct = Listing { distinct: true, ..listing(Finish::Array) };
        (0..20).for_each(|seed| check(&distinct, &value, &item(value.clone()), seed % 2 == 0, seed));
    }
    check_ordered(Finish::Joined { separator: ", ".to_owned() }, &DataType::Utf8View, &DataType::LargeUtf8);
    let distinct = Listing { distinct: true, ..listing(Finish::Joined { separator: String::new() }) };
    (0..20).for_each(|seed| check(&distinct, &DataType::Utf8View, &DataType::LargeUtf8, seed % 2 == 0, seed));
}

#[test]
fn places() {
    for finish in [Finish::First, Finish::Last, Finish::Nth { n: 1 }, Finish::Nth { n: 3 }, Finish::Nth { n: -2 }, Finish::Nth { n: 0 }] {
        if finish != (Finish::Nth { n: 0 }) {
            check_ordered(finish.clone(), &DataType::Int64, &DataType::Int64);
            check_ordered(finish, &DataType::Utf8View, &DataType::Utf8View);
        }
    }
}

#[test]
fn medians_and_percentiles() {
    for (retracts, distinct) in [(false, false), (true, false), (false, true), (true, true)] {
        for value in [DataType::Int64, DataType::Float64, DataType::Decimal128(12, 2)] {
            let median = Listing { distinct, ..listing(Finish::Median) };
            (0..12).for_each(|seed| check(&median, &value, &value, retracts, seed));
        }
        for quantile in [0.0, 0.1, 0.5, 0.93, 1.0] {
            let percentile = Listing { distinct, ..listing(Finish::Percentile { quantile }) };
            (0..12).for_each(|seed| check(&percentile, &DataType::Float64, &DataType::Float64, retracts, seed));
        }
    }
}

#[test]
fn folded() {
    for function in [Function::BitAnd, Function::BitOr, Function::BitXor] {
        for distinct in [false, true] {
            let folded = Listing { distinct, ..listing(Finish::Folded(Box::new(function.clone()))) };
            (0..20).for_each(|seed| check(&folded, &DataType::Int64, &DataType::Int64, true, seed));
        }
    }
}

#[test]
fn pairs_count_once_with_distinct() {
    let double = |name: &str| Field::new(name, DataType::Float64, true);
    let pair: Fields = vec![double("y"), double("x")].into();
    let spec = Spec {
        function: Function::Listing(Listing {
            arguments: 2,
            distinct: true,
            ..listing(Finish::Folded(Box::new(Function::Pair(Pair::Count))))
        }),
        input: Some(DataType::Struct(pair.clone())),
        output: DataType::Int64,
        retracts: false,
    };
    let column = |values: [Option<f64>; 4]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
    let rows = StructArray::new(
        pair,
        vec![column([Some(1.0), Some(1.0), Some(1.0), None]), column([Some(2.0), Some(2.0), Some(3.0), Some(1.0)])],
        None,
    );
    let mut state = fresh(&spec, 1);
    state.update(&[0; 4], Some(&(Arc::new(rows) as ArrayRef)), None, None).unwrap();
    assert_eq!(shown(&state.result(&[0]).unwrap(), 0), "2");
}

#[test]
fn what_cant_be_listed_is_refused() {
    let refused = |finish: Finish, value: DataType, output: DataType| {
        let input = Some(DataType::Struct(vec![Field::new("x", value, true)].into()));
        accumulator(&Spec { function: Function::Listing(listing(finish)), input, output, retracts: false }).err().unwrap().kind()
    };
    let kind = tidemill_engine::error::Kind::Refused;
    assert_eq!(refused(Finish::Joined { separator: String::new() }, DataType::Int64, DataType::LargeUtf8), kind);
    assert_eq!(refused(Finish::Median, DataType::Utf8, DataType::Utf8), kind);
    assert_eq!(refused(Finish::Array, DataType::Utf8, DataType::Utf8), kind);
    assert_eq!(refused(Finish::Folded(Box::new(Function::Sum)), DataType::Utf8, DataType::Utf8), kind);
}
