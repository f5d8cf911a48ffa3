//! Aggregates of pairs against two passes over the values, and to the bit in any order.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, StructArray};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type};

use super::{Accumulator, Function, Pair, Spec, accumulator};

const ALL: [Pair; 12] = [
    Pair::Corr,
    Pair::CovarPop,
    Pair::CovarSamp,
    Pair::AvgX,
    Pair::AvgY,
    Pair::Count,
    Pair::Intercept,
    Pair::R2,
    Pair::Slope,
    Pair::Sxx,
    Pair::Sxy,
    Pair::Syy,
];

type Row = (Option<f64>, Option<f64>, i64);

fn spec(pair: Pair) -> Spec {
    let double = |name: &str| Field::new(name, DataType::Float64, true);
    let input = DataType::Struct(Fields::from(vec![double("y"), double("x")]));
    let output = if pair == Pair::Count { DataType::Int64 } else { DataType::Float64 };
    Spec { function: Function::Pair(pair), input: Some(input), output, retracts: true }
}

fn of(pair: Pair, rows: &[Row]) -> Box<dyn Accumulator> {
    let mut state = accumulator(&spec(pair)).unwrap();
    state.resize(1);
    feed(state.as_mut(), rows);
    state
}

fn feed(state: &mut dyn Accumulator, rows: &[Row]) {
    let Some(DataType::Struct(fields)) = spec(Pair::Corr).input else { panic!("a struct") };
    let column = |value: fn(&Row) -> Option<f64>| Arc::new(rows.iter().map(value).collect::<Float64Array>()) as ArrayRef;
    let weights: Vec<i64> = rows.iter().map(|row| row.2).collect();
    let pairs: ArrayRef = Arc::new(StructArray::new(fields, vec![column(|row| row.0), column(|row| row.1)], None));
    state.update(&vec![0; rows.len()], Some(&pairs), None, Some(&weights)).unwrap();
}

fn value(state: &dyn Accumulator) -> Option<f64> {
    let result = state.result(&[0]).unwrap();
    match result.as_primitive_opt::<Int64Type>() {
        Some(count) => Some(count.value(0) as f64),
        None => result.is_valid(0).then(|| result.as_primitive::<Float64Type>().value(0)),
    }
}

fn naive(pair: Pair, rows: &[Row]) -> Option<f64> {
    let pairs: Vec<(f64, f64)> = rows.iter().filter_map(|row| Some((row.0?, row.1?))).collect();
    let n = pairs.len() as f64;
    let (my, mx) = (pairs.iter().map(|(y, _)| y).sum::<f64>() / n, pairs.iter().map(|(_, x)| x).sum::<f64>() / n);
    let syy: f64 = pairs.iter().map(|(y, _)| (y - my) * (y - my)).sum();
    let sxx: f64 = pairs.iter().map(|(_, x)| (x - mx) * (x - mx)).sum();
    let sxy: f64 = pairs.iter().map(|(y, x)| (y - my) * (x - mx)).sum();
    let (some, line) = (n > 0.0, n > 1.0 && sxx > 0.0);
    match pair {
        Pair::Count => Some(n),
        Pair::AvgX => some.then_some(mx),
        Pair::AvgY => some.then_some(my),
        Pair::Sxx => some.then_some(sxx),
        Pair::Syy => some.then_some(syy),
        Pair::Sxy => some.then_some(sxy),
        Pair::CovarPop => some.then_some(sxy / n),
        Pair::CovarSamp => (n > 1.0).then_some(sxy / (n - 1.0)),
        Pair::Slope => line.then_some(sxy / sxx),
        Pair::Intercept => line.then_some(my - sxy / sxx * mx),
        Pair::R2 => (line && syy > 0.0).then_some(sxy * sxy / (sxx * syy)),
        Pair::Corr => (line && syy > 0.0).then_some(sxy / (sxx * syy).sqrt()),
    }
}

#[test]
fn pairs_are_what_two_passes_give_and_the_same_in_any_order() {
    let mut seed = 1_u64;
    let mut below = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    for round in 0..60 {
        let count = [0, 1, 2, 3, 50, 400][below(6) as usize];
        let mut number = |spread: u64| (below(7) > 0).then(|| below(spread) as f64 / 16.0 - 3.0);
        let rows: Vec<Row> = (0..count).map(|_| (number(1000), number(if round % 5 == 0 { 1 } else { 300 }), 1)).collect();
        // Half of some more rows come and go again, in any order.
        let mut mixed = rows.clone();
        for _ in 0..count / 2 {
            let extra = (Some(below(1 << 30) as f64 * 1e9), Some(-0.1 * below(100) as f64));
            mixed.extend([(extra.0, extra.1, -1), (extra.0, extra.1, 1)]);
        }
        for last in (1..mixed.len()).rev() {
            mixed.swap(last, below(last as u64 + 1) as usize);
        }
        for pair in ALL {
            let state = of(pair, &rows);
            match (value(state.as_ref()), naive(pair, &rows)) {
                (Some(found), Some(wanted)) => {
                    assert!((found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0), "{pair:?} round {round}: {found} instead of {wanted}");
                }
                (found, wanted) => assert_eq!(found, wanted, "{pair:?} round {round}"),
            }
            let mut other = accumulator(&spec(pair)).unwrap();
            other.resize(1);
            for (place, part) in mixed.chunks(7).enumerate() {
                let partial = of(pair, part);
                if place % 2 == 0 {
                    other.merge_from(&[0], partial.as_ref(), &[0], 1).unwrap();
                } else {
                    other.merge(&[0], &partial.state(&[0]).unwrap(), 1).unwrap();
                }
            }
            assert_eq!(other.state(&[0]).unwrap(), state.state(&[0]).unwrap(), "{pair:?} round {round}");
            assert_eq!(value(other.as_ref()).map(f64::to_bits), value(state.as_ref()).map(f64::to_bits), "{pair:?} round {round}");
            other.clear(0);
            assert_eq!(value(other.as_ref()), naive(pair, &[]));
        }
    }
}

#[test]
fn digits_are_kept_and_rounded_once() {
    // In doubles the products below cancel to nothing.
    let far = [(1.0, 4.0, 1), (2.0, 7.0, 1), (4.0, 13.0, 1), (5.0, 16.0, 1)].map(|(y, x, weight)| (Some(y + 1e15), Some(x + 1e15), weight));
    assert_eq!(value(of(Pair::Slope, &far).as_ref()), Some(1.0 / 3.0));
    assert_eq!(value(of(Pair::Corr, &far).as_ref()), Some(1.0));
    let down = [(Some(1.0), Some(3.0), 1), (Some(2.0), Some(2.0), 1), (Some(3.0), Some(1.0), 1)];
    assert_eq!(value(of(Pair::Corr, &down).as_ref()), Some(-1.0));
    let mut odd = of(Pair::CovarPop, &[(Some(f64::INFINITY), Some(1.0), 1), (Some(2.0), Some(2.0), 1)]);
    assert!(value(odd.as_ref()).is_some_and(f64::is_nan));
    feed(odd.as_mut(), &[(Some(f64::INFINITY), Some(1.0), -1)]);
    assert_eq!(value(odd.as_ref()), Some(0.0));
}
