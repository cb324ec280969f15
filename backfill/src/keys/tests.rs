use std::sync::Arc;

use arrow::array::{Float64Array, Int64Array, StringArray, UInt64Array};

use super::*;

fn keys(columns: Vec<ArrayRef>) -> Keys {
    let names: Vec<String> = (0..columns.len()).map(|index| format!("c{index}")).collect();
    let rows = columns[0].len();
    Keys::new(columns, rows, &names).unwrap()
}

fn ints(values: Vec<i64>) -> Keys {
    keys(vec![Arc::new(Int64Array::from(values))])
}

fn pairs(values: Vec<(i64, &str)>) -> Keys {
    let (numbers, texts): (Vec<_>, Vec<_>) = values.into_iter().unzip();
    keys(vec![Arc::new(Int64Array::from(numbers)), Arc::new(StringArray::from(texts))])
}

#[test]
fn text_compares_bytewise() {
    let texts = keys(vec![Arc::new(StringArray::from(vec!["Z", "a", "ä", ""]))]);
    assert!(texts.compare(0, &texts, 1).is_lt());
    assert!(texts.compare(1, &texts, 2).is_lt());
    assert!(texts.compare(3, &texts, 0).is_lt());
}

#[test]
fn composite_keys_compare_column_by_column() {
    let pairs = pairs(vec![(1, "b"), (1, "c"), (2, "a")]);
    assert!(pairs.compare(0, &pairs, 1).is_lt());
    assert!(pairs.compare(1, &pairs, 2).is_lt());
    assert_eq!(pairs.ascent(), Ascent::Strict);
}

#[test]
fn ascent_tells_duplicates_from_disorder() {
    assert_eq!(ints(vec![]).ascent(), Ascent::Strict);
    assert_eq!(ints(vec![1, 2, 3]).ascent(), Ascent::Strict);
    assert_eq!(ints(vec![1, 2, 2]).ascent(), Ascent::WithDuplicates);
    assert_eq!(ints(vec![1, 1, 0, 5]).ascent(), Ascent::BrokenAt(2));
    assert_eq!(pairs(vec![(1, "a"), (1, "a"), (1, "")]).ascent(), Ascent::BrokenAt(2));
}

#[test]
fn numbers_at_the_ends_of_their_range_ascend_like_others() {
    let signed = [i64::MIN, i64::MIN + 1, -(1 << 62), -1, 0, 1, 1 << 62, i64::MAX - 1, i64::MAX];
    let unsigned = [0, 1, 1 << 62, i64::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX];
    assert_eq!(ints(signed.to_vec()).ascent(), Ascent::Strict);
    let unsigneds = |values: Vec<u64>| keys(vec![Arc::new(UInt64Array::from(values))]);
    assert_eq!(unsigneds(unsigned.to_vec()).ascent(), Ascent::Strict);
    let expected = |is_less: bool, is_equal: bool| match (is_less, is_equal) {
        (true, _) => Ascent::Strict,
        (_, true) => Ascent::WithDuplicates,
        _ => Ascent::BrokenAt(1),
    };
    for left in signed {
        for right in signed {
            assert_eq!(ints(vec![left, right]).ascent(), expected(left < right, left == right));
        }
    }
    for left in unsigned {
        for right in unsigned {
            assert_eq!(unsigneds(vec![left, right]).ascent(), expected(left < right, left == right));
        }
    }
}

#[test]
fn an_equal_run_ends_exactly_where_it_ends() {
    for length in [0, 1, 31, 32, 33, 64, 100] {
        let texts: Vec<String> = (0..200).map(|row| format!("{row:04}")).collect();
        let mut other = texts.clone();
        other[length] = "~".into();
        let column = |texts: Vec<String>| keys(vec![Arc::new(StringArray::from(texts))]);
        assert_eq!(column(texts.clone()).equal_prefix(0, &column(other.clone()), 0, 200), length);
        assert_eq!(column(texts.clone()).equal_prefix(0, &column(texts), 0, length), length);

        let numbers: Vec<i64> = (0..200).collect();
        let mut changed = numbers.clone();
        changed[length] = -1;
        assert_eq!(ints(numbers).equal_prefix(0, &ints(changed), 0, 200), length);
    }
}

/// `ab`,`c` and `a`,`bc` are the same bytes.
#[test]
fn an_equal_run_looks_at_where_values_end() {
    let texts = |first: &str, second: &str| {
        let texts: Vec<&str> = [first, second].into_iter().cycle().take(64).collect();
        keys(vec![Arc::new(StringArray::from(texts))])
    };
    assert_eq!(texts("ab", "c").equal_prefix(0, &texts("a", "bc"), 0, 64), 0);
}

#[test]
fn the_lower_bound_is_the_first_of_equals() {
    let rows = ints(vec![1, 3, 3, 5]);
    let bound = |key: i64| rows.lower_bound(&ints(vec![key]), 0);
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(bound), [0, 0, 1, 1, 3, 3, 4]);
}

#[test]
fn a_slice_compares_like_its_rows() {
    let pairs = pairs(vec![(1, "b"), (1, "c"), (2, "a")]);
    assert!(pairs.slice(1, 2).compare(0, &pairs, 1).is_eq());
    assert_eq!(pairs.slice(1, 2).display(0), "(1, c)");
}

#[test]
fn floating_point_is_no_key() {
    let column: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
    let error = Keys::new(vec![column], 1, &["rate".to_owned()]).unwrap_err();
    assert!(matches!(&error, Error::KeyType { column, .. } if column == "rate"), "{error:?}");
}
