//! Every aggregate against the naive model on random rows, in any order and under any partition; all comparisons of states by bytes.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, StringArray,
    StringViewArray, TimestampMillisecondArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMillisecondType,
};

use super::model::{Expected, Value, expected};
use super::{Accumulator, Function, Spec, accumulator};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        super::hash::hash_u64(self.0)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// How wild the values are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    /// Few different values, near each other.
    Tame,
    /// Anything finite.
    Wild,
    /// Everything, the ends of each type above all.
    Extreme,
}

fn value(random: &mut Random, data_type: &DataType, mood: Mood) -> Value {
    let small = random.below(200) as i128 - 100;
    let pick = random.below(8);
    let integer = |random: &mut Random, least: i128, greatest: i128| match (mood, pick) {
        (Mood::Tame, _) => small,
        (Mood::Extreme, 0) => least,
        (Mood::Extreme, 1) => greatest,
        (Mood::Extreme, 2) => greatest - 1,
        _ => least + ((i128::from(random.next()) << 62 | i128::from(random.next() >> 2)) % (greatest / 2 - least / 2)) * 2,
    };
    match data_type {
        DataType::Boolean => Value::Whole(i128::from(random.below(4) > 0)),
        DataType::Int16 => Value::Whole(integer(random, i16::MIN.into(), i16::MAX.into())),
        DataType::Int32 | DataType::Date32 => Value::Whole(integer(random, i32::MIN.into(), i32::MAX.into())),
        DataType::Decimal128(digits, _) => {
            let limit = 10_i128.pow(u32::from(*digits)) - 1;
            Value::Whole(integer(random, -limit, limit))
        }
        DataType::Int64 | DataType::Timestamp(..) => Value::Whole(integer(random, i64::MIN.into(), i64::MAX.into())),
        DataType::Float32 | DataType::Float64 => {
            let single = *data_type == DataType::Float32;
            let real = match (mood, pick) {
                (Mood::Tame, _) => small as f64 / 8.0,
                (Mood::Extreme, 0) => [0.0, -0.0, 1e308, -1e308, f64::MAX, -f64::MAX][random.below(6)],
                (Mood::Extreme, 1) => f64::from_bits(random.next() & 0x800f_ffff_ffff_ffff),
                (Mood::Extreme, 2) if random.below(12) == 0 => [f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -f64::NAN][random.below(4)],
                (Mood::Extreme, _) => f64::from_bits(random.next() & 0xbfff_ffff_ffff_ffff | u64::from(random.below(2) == 0) << 61),
                _ => (random.next() as f64 / 1e15 - 9000.0) * if pick == 0 { 1e9 } else { 1.0 },
            };
            Value::Real(if single { f64::from(real as f32) } else { real })
        }
        _ => {
            let length = if mood == Mood::Tame { 1 } else { random.below(30) };
            Value::Bytes((0..length).map(|_| b'a' + random.below(26) as u8).collect())
        }
    }
}

fn column(data_type: &DataType, values: &[Option<Value>]) -> ArrayRef {
    let wholes = || values.iter().map(|value| if let Some(Value::Whole(whole)) = value { Some(*whole) } else { None });
    let reals = || values.iter().map(|value| if let Some(Value::Real(real)) = value { Some(*real) } else { None });
    let texts = || values.iter().map(|value| if let Some(Value::Bytes(bytes)) = value { Some(bytes.as_slice()) } else { None });
    let strings = || texts().map(|text| text.map(|text| std::str::from_utf8(text).unwrap()));
    match data_type {
        DataType::Boolean => Arc::new(wholes().map(|whole| whole.map(|whole| whole == 1)).collect::<BooleanArray>()),
        DataType::Int16 => Arc::new(wholes().map(|whole| whole.map(|whole| whole as i16)).collect::<Int16Array>()),
        DataType::Int32 => Arc::new(wholes().map(|whole| whole.map(|whole| whole as i32)).collect::<Int32Array>()),
        DataType::Int64 => Arc::new(wholes().map(|whole| whole.map(|whole| whole as i64)).collect::<Int64Array>()),
        DataType::Timestamp(..) => Arc::new(wholes().map(|whole| whole.map(|whole| whole as i64)).collect::<TimestampMillisecondArray>()),
        DataType::Float32 => Arc::new(reals().map(|real| real.map(|real| real as f32)).collect::<Float32Array>()),
        DataType::Float64 => Arc::new(reals().collect::<Float64Array>()),
        DataType::Decimal128(digits, scale) => {
            let array = wholes().collect::<arrow::array::Decimal128Array>();
            Arc::new(array.with_precision_and_scale(*digits, *scale).unwrap())
        }
        DataType::Utf8 => Arc::new(strings().collect::<StringArray>()),
        DataType::Utf8View => Arc::new(strings().collect::<StringViewArray>()),
        _ => Arc::new(texts().collect::<BinaryArray>()),
    }
}

fn read(array: &ArrayRef, row: usize) -> Option<Value> {
    if array.is_null(row) {
        return None;
    }
    Some(match array.data_type() {
        DataType::Boolean => Value::Whole(i128::from(array.as_boolean().value(row))),
        DataType::Int16 => Value::Whole(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Value::Whole(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Value::Whole(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::Timestamp(..) => Value::Whole(array.as_primitive::<TimestampMillisecondType>().value(row).into()),
        DataType::Float32 => Value::Real(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => Value::Real(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => Value::Whole(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Utf8 => Value::Bytes(array.as_string::<i32>().value(row).into()),
        DataType::Utf8View => Value::Bytes(array.as_string_view().value(row).into()),
        _ => Value::Bytes(array.as_binary::<i32>().value(row).into()),
    })
}

#[derive(Debug, Clone)]
struct Row {
    group: u32,
    value: Option<Value>,
    filter: Option<bool>,
    weight: i64,
}

fn feed(state: &mut dyn Accumulator, spec: &Spec, rows: &[Row], filtered: bool, weighted: bool) {
    let groups: Vec<u32> = rows.iter().map(|row| row.group).collect();
    let values: Vec<Option<Value>> = rows.iter().map(|row| row.value.clone()).collect();
    let filter: BooleanArray = rows.iter().map(|row| row.filter).collect();
    let weights: Vec<i64> = rows.iter().map(|row| row.weight).collect();
    let argument = spec.input.as_ref().map(|input| column(input, &values));
    state.update(&groups, argument.as_ref(), filtered.then_some(&filter), weighted.then_some(&weights)).unwrap();
}

fn fresh(spec: &Spec, groups: usize) -> Box<dyn Accumulator> {
    let mut state = accumulator(spec).unwrap();
    state.resize(groups);
    state
}

/// All columns of the state and the result (or its error), for comparison to the bit.
fn all(state: &dyn Accumulator, groups: &[u32]) -> (Vec<ArrayRef>, Result<arrow::array::ArrayData, String>) {
    let columns = state.state(groups).unwrap();
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    assert_eq!(types, state.state_types().into_iter().map(|(_, data_type)| data_type).collect::<Vec<_>>());
    (columns, state.result(groups).map(|array| array.to_data()).map_err(|error| error.message().to_owned()))
}

fn check(spec: &Spec, mood: Mood, seed: u64) {
    let mut random = Random(seed);
    let groups = [1, 3, 40][random.below(3)];
    let count = [0, 5, 60, 1500][random.below(4)];
    let (filtered, nullable) = (random.below(2) == 0, random.below(2) == 0);
    let input = spec.input.clone().unwrap_or(DataType::Int64);
    let mut rows: Vec<Row> = (0..count)
        .map(|_| Row {
            group: random.below(groups) as u32,
            value: (!nullable || random.below(5) > 0).then(|| value(&mut random, &input, mood)),
            filter: if !filtered { Some(true) } else { [None, Some(false), Some(true), Some(true)][random.below(4)] },
            weight: 1,
        })
        .collect();
    let mut kept = rows.clone();
    if spec.retracts {
        let gone = if count == 0 { 0 } else { random.below(count) };
        random.shuffle(&mut kept);
        rows.extend(kept.drain(..gone).map(|row| Row { weight: -1, ..row }));
    }
    let weighted = spec.retracts || random.below(3) == 0;
    let every: Vec<u32> = (0..groups as u32).collect();

    let mut state = fresh(spec, groups);
    feed(state.as_mut(), spec, &rows, filtered, weighted);
    let (columns, result) = all(state.as_ref(), &every);
    compare(spec, &kept, groups, &result, mood);

    // Any order, any batches.
    random.shuffle(&mut rows);
    let mut other = fresh(spec, groups);
    for batch in rows.chunks(1 + random.below(100)) {
        feed(other.as_mut(), spec, batch, filtered, weighted);
    }
    assert_eq!(all(other.as_ref(), &every), (columns.clone(), result.clone()), "{spec:?} seed {seed}: another order");

    // Any partition, merged in any order, both ways; slots of the parts are in another order too.
    let (mut encoded, mut direct) = (fresh(spec, groups), fresh(spec, groups));
    let mut slots = every.clone();
    random.shuffle(&mut slots);
    for part in rows.chunks(1 + random.below(rows.len() + 1)) {
        let moved: Vec<Row> = part.iter().map(|row| Row { group: slots[row.group as usize], ..row.clone() }).collect();
        let mut partial = fresh(spec, groups);
        feed(partial.as_mut(), spec, &moved, filtered, weighted);
        encoded.merge(&every, &partial.state(&slots).unwrap(), 1).unwrap();
        direct.merge_from(&every, partial.as_ref(), &slots, 1).unwrap();
    }
    assert_eq!(all(encoded.as_ref(), &every), (columns.clone(), result.clone()), "{spec:?} seed {seed}: merged states");
    assert_eq!(all(direct.as_ref(), &every), (columns.clone(), result.clone()), "{spec:?} seed {seed}: merged accumulators");

    // A snapshot read back, and slots used before.
    let mut reused = fresh(spec, groups);
    feed(reused.as_mut(), spec, &rows, filtered, weighted);
    every.iter().for_each(|&group| reused.clear(group as usize));
    assert_eq!(all(reused.as_ref(), &every), all(fresh(spec, groups).as_ref(), &every), "{spec:?} seed {seed}: cleared");
    reused.merge(&every, &columns, 1).unwrap();
    assert_eq!(all(reused.as_ref(), &every), (columns.clone(), result.clone()), "{spec:?} seed {seed}: snapshot into cleared slots");

    // Taking a part out again leaves the rest.
    if state.invertible() {
        let extra: Vec<Row> = rows.iter().take(rows.len() / 2).cloned().collect();
        let mut partial = fresh(spec, groups);
        feed(partial.as_mut(), spec, &extra, filtered, weighted);
        state.merge_from(&every, partial.as_ref(), &every, 1).unwrap();
        state.merge(&every, &partial.state(&every).unwrap(), -1).unwrap();
        assert_eq!(all(state.as_ref(), &every), (columns.clone(), result.clone()), "{spec:?} seed {seed}: taken out");
        state.merge(&every, &partial.state(&every).unwrap(), 1).unwrap();
        state.merge_from(&every, partial.as_ref(), &every, -1).unwrap();
        assert_eq!(all(state.as_ref(), &every), (columns, result), "{spec:?} seed {seed}: taken out directly");
    }
}

fn compare(spec: &Spec, kept: &[Row], groups: usize, result: &Result<arrow::array::ArrayData, String>, mood: Mood) {
    let decimal = match (&spec.input, &spec.output) {
        (Some(DataType::Decimal128(_, from)), DataType::Decimal128(digits, to)) => {
            Some((10_i128.pow((to - from) as u32), u32::from(*digits)))
        }
        _ => None,
    };
    let expectations: Vec<Expected> = (0..groups as u32)
        .map(|group| {
            let rows = || kept.iter().filter(move |row| row.group == group && row.filter == Some(true));
            let values: Vec<Value> = rows().filter_map(|row| row.value.clone()).collect();
            expected(&spec.function, &values, rows().count() as i64, decimal)
        })
        .collect();
    let Ok(result) = result else {
        assert!(expectations.contains(&Expected::Fails), "{spec:?} fails without reason: {result:?}");
        return;
    };
    let result = arrow::array::make_array(result.clone());
    assert_eq!(*result.data_type(), spec.output);
    for (group, expectation) in expectations.iter().enumerate() {
        let value = read(&result, group);
        let fits = match (expectation, &value) {
            (Expected::Exactly(Some(Value::Real(a))), Some(Value::Real(b))) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
            (Expected::Exactly(exact), value) => exact == value,
            // Near is only meant where the model itself is near: not where doubles overflow.
            (Expected::Near(..), _) if mood == Mood::Extreme && matches!(spec.input, Some(DataType::Float32 | DataType::Float64)) => true,
            (Expected::Near(near, fraction), Some(value)) => {
                let (value, whole) = match value {
                    Value::Whole(whole) => (*whole as f64, 0.5),
                    Value::Real(real) => (*real, 1e-9 * f64::from(*fraction < 1e-6)),
                    Value::Bytes(_) => (f64::NAN, 0.0),
                };
                (value - near).abs() <= near.abs() * fraction + whole || (value.is_nan() && near.is_nan())
            }
            _ => false,
        };
        assert!(fits, "{spec:?} {mood:?} group {group}: {value:?} instead of {expectation:?}");
    }
}

const TEXT: [DataType; 3] = [DataType::Utf8, DataType::Utf8View, DataType::Binary];
const INTS: [DataType; 3] = [DataType::Int16, DataType::Int32, DataType::Int64];
const REALS: [DataType; 2] = [DataType::Float32, DataType::Float64];

fn decimals() -> Vec<DataType> {
    vec![DataType::Decimal128(5, 2), DataType::Decimal128(18, 2), DataType::Decimal128(28, 4), DataType::Decimal128(38, 10)]
}

fn any_type() -> Vec<DataType> {
    let others = [DataType::Boolean, DataType::Timestamp(TimeUnit::Millisecond, None)];
    [decimals(), INTS.to_vec(), REALS.to_vec(), TEXT.to_vec(), others.to_vec()].concat()
}

/// Checks a function over types, with and without retractions.
fn check_all(function: Function, inputs: Vec<DataType>, output: impl Fn(&DataType) -> DataType, retracts: &[bool]) {
    for (index, input) in inputs.iter().enumerate() {
        for &retracts in retracts {
            let spec = Spec { function: function.clone(), input: Some(input.clone()), output: output(input), retracts };
            for mood in [Mood::Tame, Mood::Wild, Mood::Extreme] {
                (0..12).for_each(|seed| check(&spec, mood, seed * 1000 + index as u64));
            }
        }
    }
}

const BOTH: [bool; 2] = [false, true];

fn sum_type(input: &DataType) -> DataType {
    match input {
        DataType::Decimal128(digits, scale) => DataType::Decimal128((digits + 10).min(38), *scale),
        DataType::Float32 | DataType::Float64 => DataType::Float64,
        _ => DataType::Int64,
    }
}

fn avg_type(input: &DataType) -> DataType {
    match input {
        DataType::Decimal128(digits, scale) => DataType::Decimal128((digits + 4).min(38), (scale + 4).min(38)),
        _ => DataType::Float64,
    }
}

fn numbers() -> Vec<DataType> {
    [decimals(), INTS.to_vec(), REALS.to_vec()].concat()
}

#[test]
fn counts() {
    for retracts in BOTH {
        let spec = Spec { function: Function::CountStar, input: None, output: DataType::Int64, retracts };
        (0..30).for_each(|seed| check(&spec, Mood::Tame, seed));
    }
    check_all(Function::Count, any_type(), |_| DataType::Int64, &BOTH);
}

#[test]
fn sums() {
    check_all(Function::Sum, numbers(), sum_type, &BOTH);
}

#[test]
fn averages() {
    check_all(Function::Avg, numbers(), avg_type, &BOTH);
}

#[test]
fn extremes() {
    check_all(Function::Min, any_type(), Clone::clone, &BOTH);
    check_all(Function::Max, any_type(), Clone::clone, &BOTH);
}

#[test]
fn distinct_counts() {
    check_all(Function::CountDistinct, any_type(), |_| DataType::Int64, &BOTH);
}

#[test]
fn distinct_sums() {
    check_all(Function::SumDistinct, numbers(), sum_type, &BOTH);
    check_all(Function::AvgDistinct, numbers(), avg_type, &BOTH);
}

#[test]
fn variances() {
    let inputs = vec![DataType::Int16, DataType::Int32, DataType::Float32, DataType::Float64];
    for function in [Function::VarPop, Function::VarSamp, Function::StddevPop, Function::StddevSamp] {
        check_all(function, inputs.clone(), |_| DataType::Float64, &BOTH);
    }
}

#[test]
fn booleans() {
    check_all(Function::BoolAnd, vec![DataType::Boolean], Clone::clone, &BOTH);
    check_all(Function::BoolOr, vec![DataType::Boolean], Clone::clone, &BOTH);
}

#[test]
fn bits() {
    check_all(Function::BitXor, INTS.to_vec(), Clone::clone, &BOTH);
    check_all(Function::BitAnd, INTS.to_vec(), Clone::clone, &[false]);
    check_all(Function::BitOr, INTS.to_vec(), Clone::clone, &[false]);
}

#[test]
fn approximate_counts() {
    check_all(Function::ApproxDistinct, any_type(), |_| DataType::Int64, &[false]);
}

#[test]
fn percentiles() {
    for quantile in [0.0, 0.07, 0.5, 0.95, 1.0] {
        check_all(Function::ApproxPercentile { quantile }, numbers(), Clone::clone, &BOTH);
    }
}

/// One group over one column.
fn of(function: Function, output: DataType, retracts: bool, values: &ArrayRef) -> Box<dyn Accumulator> {
    let mut state = fresh(&Spec { function, input: Some(values.data_type().clone()), output, retracts }, 1);
    state.update(&vec![0; values.len()], Some(values), None, None).unwrap();
    state
}

fn real(state: &dyn Accumulator) -> f64 {
    state.result(&[0]).unwrap().as_primitive::<Float64Type>().value(0)
}

fn reals(values: &[f64]) -> ArrayRef {
    Arc::new(Float64Array::from(values.to_vec()))
}

fn sum_of(values: &[f64]) -> f64 {
    real(of(Function::Sum, DataType::Float64, false, &reals(values)).as_ref())
}

#[test]
fn sums_of_doubles_are_rounded_once() {
    assert_eq!(sum_of(&[1e308, 1e308, -1e308, -1e308, 3.5]), 3.5);
    assert_eq!(sum_of(&[1e308, 1e308]), f64::INFINITY);
    assert_eq!(sum_of(&[0.1; 10]), 1.0);
    assert_eq!(sum_of(&[1.0, 1e-20, 1e-20]), 1.0);
    assert_eq!(sum_of(&[1.0, f64::EPSILON / 2.0]), 1.0, "a tie goes to even");
    assert_eq!(sum_of(&[1.0, f64::EPSILON / 2.0, 1e-300]), 1.0 + f64::EPSILON, "no longer a tie");
    assert_eq!(sum_of(&[-0.0, -0.0]).to_bits(), 0);
    assert_eq!(sum_of(&[f64::from_bits(1), f64::from_bits(3)]), f64::from_bits(4));
    assert!(sum_of(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
    assert_eq!(sum_of(&[f64::INFINITY, -1.0]), f64::INFINITY);
    let mean = of(Function::Avg, DataType::Float64, false, &reals(&[f64::MAX, f64::MAX, f64::MAX]));
    assert_eq!(real(mean.as_ref()), f64::MAX, "the sum overflows a double, the mean does not");
}

#[test]
fn infinities_leave_again() {
    let values = reals(&[f64::INFINITY, f64::NAN, 2.5]);
    for (function, expected) in [(Function::Sum, 2.5), (Function::Avg, 2.5), (Function::VarPop, 0.0)] {
        let mut state = of(function, DataType::Float64, true, &values);
        assert!(real(state.as_ref()).is_nan());
        state.update(&[0, 0], Some(&values.slice(0, 2)), None, Some(&[-1, -1])).unwrap();
        assert_eq!(real(state.as_ref()), expected);
    }
}

#[test]
fn variances_keep_all_digits() {
    // The textbook formula in doubles gives 0 or worse here; two-pass gives 22.5 only by luck of the order.
    let shifted = [4.0, 7.0, 13.0, 16.0].map(|x| x + 1e15);
    assert_eq!(real(of(Function::VarPop, DataType::Float64, false, &reals(&shifted)).as_ref()), 22.5);
    assert_eq!(real(of(Function::VarSamp, DataType::Float64, false, &reals(&shifted)).as_ref()), 30.0);
    // Squares far below the least double are kept; the variance underflows only when it is rounded.
    assert_eq!(real(of(Function::VarPop, DataType::Float64, false, &reals(&[1e-160, 3e-160])).as_ref()), 1e-320);
    assert_eq!(real(of(Function::VarPop, DataType::Float64, false, &reals(&[0.1; 7])).as_ref()), 0.0);
    assert_eq!(real(of(Function::VarPop, DataType::Float64, false, &reals(&[f64::MAX, -f64::MAX])).as_ref()), f64::INFINITY);
}

#[test]
fn sums_past_their_type_fail_at_the_result() {
    let most: ArrayRef = Arc::new(Int64Array::from(vec![i64::MAX, 1]));
    let mut state = of(Function::Sum, DataType::Int64, false, &most);
    assert_eq!(state.result(&[0]).unwrap_err().message(), "sum(BIGINT) past 64 bits");
    state.update(&[0], Some(&(Arc::new(Int64Array::from(vec![-1])) as ArrayRef)), None, None).unwrap();
    assert_eq!(read(&state.result(&[0]).unwrap(), 0), Some(Value::Whole(i64::MAX.into())), "and comes back");

    let input = DataType::Decimal128(38, 2);
    let greatest = 10_i128.pow(38) - 1;
    let values = column(&input, &[Some(Value::Whole(greatest)), Some(Value::Whole(greatest))]);
    assert_eq!(of(Function::Sum, input.clone(), false, &values).result(&[0]).unwrap_err().message(), "sum(DECIMAL(38, 2)) past 38 digits");
    let failed = of(Function::Avg, DataType::Decimal128(38, 6), false, &values).result(&[0]).unwrap_err();
    assert_eq!(failed.message(), "avg(DECIMAL(38, 2)) past 38 digits");
}

#[test]
fn averages_of_decimals_are_cut_like_datafusion() {
    let input = DataType::Decimal128(10, 2);
    for (values, mean) in [([100, 100, 101], 1_003_333), ([-100, -100, -101], -1_003_333), ([200, 0, 0], 666_666)] {
        let values = column(&input, &values.map(|value| Some(Value::Whole(value))));
        let state = of(Function::Avg, DataType::Decimal128(14, 6), false, &values);
        assert_eq!(read(&state.result(&[0]).unwrap(), 0), Some(Value::Whole(mean)));
    }
}

#[test]
fn what_cant_be_kept_is_refused() {
    let refused = |function, input, output, retracts| {
        let error = accumulator(&Spec { function, input, output, retracts }).err().unwrap();
        assert_eq!(error.kind(), tidemill_engine::error::Kind::Refused);
        error.message().to_owned()
    };
    assert!(refused(Function::Sum, Some(DataType::Utf8), DataType::Utf8, false).contains("sum over Utf8"));
    assert!(refused(Function::Sum, Some(DataType::Int64), DataType::UInt64, false).contains("does not return"));
    assert!(refused(Function::ApproxDistinct, Some(DataType::Int64), DataType::Int64, true).contains("count(DISTINCT"));
    assert!(refused(Function::Min, None, DataType::Int64, false).contains("needs an argument"));
    assert!(refused(Function::SumDistinct, Some(DataType::Utf8), DataType::Int64, false).contains("Utf8"));
    refused(Function::ApproxPercentile { quantile: 1.5 }, Some(DataType::Int64), DataType::Int64, false);
}

#[test]
fn retractions_need_a_state_that_can() {
    let values: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    for function in [Function::Min, Function::CountDistinct, Function::ApproxDistinct, Function::ApproxPercentile { quantile: 0.5 }] {
        let mut state = fresh(&Spec { function, input: Some(DataType::Int64), output: DataType::Int64, retracts: false }, 1);
        assert!(!state.invertible());
        assert!(state.update(&[0], Some(&values), None, Some(&[-1])).is_err());
        let partial = state.state(&[0]).unwrap();
        assert!(state.merge(&[0], &partial, -1).is_err());
    }
}

#[test]
fn damaged_states_are_errors() {
    let damaged: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&[3, 1, 2]]));
    let count: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let mut sum = fresh(&Spec { function: Function::Sum, input: Some(DataType::Float64), output: DataType::Float64, retracts: false }, 1);
    assert!(sum.merge(&[0], &[damaged.clone(), count.clone()], 1).is_err());
    assert!(sum.merge(&[0], &[count], 1).is_err());
    let mut sketch =
        fresh(&Spec { function: Function::ApproxDistinct, input: Some(DataType::Utf8), output: DataType::Int64, retracts: false }, 1);
    assert!(sketch.merge(&[0], &[damaged], 1).is_err());
    let mut set =
        fresh(&Spec { function: Function::CountDistinct, input: Some(DataType::Utf8), output: DataType::Int64, retracts: true }, 1);
    assert!(set.merge(&[0], &[], 1).is_err());
}

#[test]
fn approximate_counts_keep_their_error() {
    for (seed, count) in [(1, 513), (2, 2_000), (3, 10_000), (4, 40_000), (5, 80_000), (6, 300_000), (7, 1_000_000)] {
        let values: Vec<i64> = (0..count).map(|i| i * 3 + seed * 1_000_000_007).collect();
        let texts: StringArray = values.iter().map(|value| Some(format!("visitor-{value}"))).collect();
        for values in [Arc::new(Int64Array::from(values)) as ArrayRef, Arc::new(texts)] {
            let state = of(Function::ApproxDistinct, DataType::Int64, false, &values);
            let estimate = state.result(&[0]).unwrap().as_primitive::<Int64Type>().value(0);
            assert!(estimate.abs_diff(count) as f64 <= 0.033 * count as f64, "{estimate} instead of {count}");
        }
    }
}

#[test]
fn percentiles_keep_their_error_on_skewed_data() {
    let mut random = Random(7);
    let mut values: Vec<f64> = (0..200_000).map(|_| 1.0 / (random.next() as f64 / u64::MAX as f64).powi(3)).collect();
    let column = reals(&values);
    values.sort_by(f64::total_cmp);
    for quantile in [0.001, 0.01, 0.25, 0.5, 0.9, 0.99, 0.999, 0.9999] {
        let state = of(Function::ApproxPercentile { quantile }, DataType::Float64, true, &column);
        let exact = values[(quantile * values.len() as f64).ceil() as usize - 1];
        assert!((real(state.as_ref()) / exact - 1.0).abs() < 0.01, "{quantile}");
    }
    let constant = of(Function::ApproxPercentile { quantile: 0.5 }, DataType::Float64, false, &reals(&[5.0; 9]));
    assert_eq!(real(constant.as_ref()), 5.0);
    let small =
        of(Function::ApproxPercentile { quantile: 0.5 }, DataType::Float64, true, &reals(&[f64::MIN_POSITIVE, f64::MAX, -f64::MAX]));
    assert!((real(small.as_ref()) / f64::MIN_POSITIVE - 1.0).abs() < 0.01);
}

#[test]
fn strings_leave_the_arena() {
    let spec = Spec { function: Function::CountDistinct, input: Some(DataType::Utf8), output: DataType::Int64, retracts: false };
    let mut state = fresh(&spec, 50);
    let mut after_first = 0;
    for round in 0..20 {
        let texts: ArrayRef = Arc::new((0..50_000).map(|i| Some(format!("visitor-{round}-{i}"))).collect::<StringArray>());
        let groups: Vec<u32> = (0..50_000).map(|i| i % 50).collect();
        state.update(&groups, Some(&texts), None, None).unwrap();
        state.update(&groups, Some(&texts), None, None).unwrap();
        assert_eq!(state.result(&[7]).unwrap().as_primitive::<Int64Type>().value(0), 1_000);
        (0..50).for_each(|group| state.clear(group));
        after_first = if round == 0 { state.bytes() } else { after_first };
    }
    assert!(state.bytes() <= 2 * after_first, "{} bytes held for nothing, {after_first} after one round", state.bytes());
}
