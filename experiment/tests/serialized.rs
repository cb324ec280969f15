//! Differences of values that serialise are those of the trees that `serde_json` would make of them: of whatever
//! a `Serialize` may do.

use crossfade_experiment::{DiffKind, FieldDiff, Reveal, diff_json, diff_serialized};
use proptest::{prelude::*, strategy::ValueTree};
use serde::{
    Serialize, Serializer,
    ser::{
        SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
        SerializeTupleStruct, SerializeTupleVariant,
    },
};

/// Everything that serde's model knows.
#[derive(Debug, Clone)]
enum Any {
    Unit,
    UnitStruct,
    None,
    Some(Box<Any>),
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Long(i128),
    LongUnsigned(u128),
    Single(f32),
    Double(f64),
    Char(char),
    Text(String),
    Bytes(Vec<u8>),
    Displayed(u8),
    UnitVariant(usize),
    Newtype(Box<Any>),
    NewtypeVariant(usize, Box<Any>),
    Items(Shape, Vec<Any>),
    /// Its keys may be anything, and come twice.
    Map(Vec<(Any, Any)>),
    Struct(Vec<(usize, Any)>),
    StructVariant(usize, Vec<(usize, Any)>),
    /// What `serde_json` turns raw values and long numbers into, where those features are on.
    StandIn(String),
    Failing,
}

#[derive(Debug, Clone, Copy)]
enum Shape {
    Seq,
    Tuple,
    TupleStruct,
    TupleVariant(usize),
}

/// Neither in the order of the alphabet, nor free of names that begin alike.
const NAMES: [&str; 5] = ["plan", "id", "plans", "", "ends"];

impl Serialize for Any {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Unit => serializer.serialize_unit(),
            Self::UnitStruct => serializer.serialize_unit_struct("Unit"),
            Self::None => serializer.serialize_none(),
            Self::Some(value) => serializer.serialize_some(value),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Long(value) => serializer.serialize_i128(*value),
            Self::LongUnsigned(value) => serializer.serialize_u128(*value),
            Self::Single(value) => serializer.serialize_f32(*value),
            Self::Double(value) => serializer.serialize_f64(*value),
            Self::Char(value) => serializer.serialize_char(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Bytes(value) => serializer.serialize_bytes(value),
            Self::Displayed(value) => serializer.collect_str(value),
            Self::UnitVariant(name) => serializer.serialize_unit_variant("Any", 0, NAMES[*name]),
            Self::Newtype(value) => serializer.serialize_newtype_struct("Newtype", value),
            Self::NewtypeVariant(name, value) => {
                serializer.serialize_newtype_variant("Any", 0, NAMES[*name], value)
            }
            Self::Items(Shape::Seq, items) => {
                let mut seq = serializer.serialize_seq(None)?;
                items.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Self::Items(Shape::Tuple, items) => {
                let mut tuple = serializer.serialize_tuple(items.len())?;
                items.iter().try_for_each(|item| tuple.serialize_element(item))?;
                tuple.end()
            }
            Self::Items(Shape::TupleStruct, items) => {
                let mut tuple = serializer.serialize_tuple_struct("Tuple", items.len())?;
                items.iter().try_for_each(|item| tuple.serialize_field(item))?;
                tuple.end()
            }
            Self::Items(Shape::TupleVariant(name), items) => {
                let mut tuple = serializer.serialize_tuple_variant("Any", 0, NAMES[*name], items.len())?;
                items.iter().try_for_each(|item| tuple.serialize_field(item))?;
                tuple.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(None)?;
                entries.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Self::Struct(fields) => {
                let mut fields_of = serializer.serialize_struct("Struct", fields.len())?;
                fields.iter().try_for_each(|(name, value)| fields_of.serialize_field(NAMES[*name], value))?;
                fields_of.end()
            }
            Self::StructVariant(variant, fields) => {
                let mut fields_of =
                    serializer.serialize_struct_variant("Any", 0, NAMES[*variant], fields.len())?;
                fields.iter().try_for_each(|(name, value)| fields_of.serialize_field(NAMES[*name], value))?;
                fields_of.end()
            }
            Self::StandIn(text) => {
                const NAME: &str = "$serde_json::private::RawValue";
                let mut stand_in = serializer.serialize_struct(NAME, 1)?;
                stand_in.serialize_field(NAME, text)?;
                stand_in.end()
            }
            Self::Failing => Err(serde::ser::Error::custom("never")),
        }
    }
}

impl Any {
    /// Replaces the value that is met as the `at`-th on a walk; `false` where there are fewer.
    fn replace(&mut self, at: &mut usize, with: &Any) -> bool {
        if *at == 0 {
            *self = with.clone();
            return true;
        }
        *at -= 1;
        match self {
            Self::Some(value) | Self::Newtype(value) | Self::NewtypeVariant(_, value) => {
                value.replace(at, with)
            }
            Self::Items(_, items) => items.iter_mut().any(|item| item.replace(at, with)),
            Self::Map(entries) => entries.iter_mut().any(|(_, value)| value.replace(at, with)),
            Self::Struct(fields) | Self::StructVariant(_, fields) => {
                fields.iter_mut().any(|(_, value)| value.replace(at, with))
            }
            _ => false,
        }
    }
}

fn scalar() -> impl Strategy<Value = Any> {
    prop_oneof![
        Just(Any::Unit),
        Just(Any::UnitStruct),
        Just(Any::None),
        any::<bool>().prop_map(Any::Bool),
        prop_oneof![-2i64..3, any::<i64>()].prop_map(Any::Signed),
        prop_oneof![0u64..3, any::<u64>()].prop_map(Any::Unsigned),
        prop_oneof![-2i128..3, any::<i128>()].prop_map(Any::Long),
        prop_oneof![0u128..3, any::<u128>()].prop_map(Any::LongUnsigned),
        prop_oneof![Just(0.1f32), Just(-0.0), Just(1.0), Just(f32::NAN), any::<f32>()].prop_map(Any::Single),
        prop_oneof![Just(0.1f64), Just(0.0), Just(1.0), Just(f64::INFINITY), any::<f64>()]
            .prop_map(Any::Double),
        "[a1ü]".prop_map(|text| Any::Char(text.chars().next().unwrap_or('a'))),
        "[a1ü]{0,3}".prop_map(Any::Text),
        prop::collection::vec(0u8..3, 0..3).prop_map(Any::Bytes),
        (0u8..3).prop_map(Any::Displayed),
        (0..NAMES.len()).prop_map(Any::UnitVariant),
    ]
}

/// Few fail: most pairs are to be compared.
fn tree() -> impl Strategy<Value = Any> {
    let leaf = prop_oneof![
        60 => scalar(),
        1 => Just(Any::Failing),
        1 => "[0-9]{1,3}".prop_map(Any::StandIn),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let name = 0..NAMES.len();
        let items = prop::collection::vec(inner.clone(), 0..5);
        let shape = prop_oneof![
            Just(Shape::Seq),
            Just(Shape::Tuple),
            Just(Shape::TupleStruct),
            name.clone().prop_map(Shape::TupleVariant),
        ];
        let key = prop_oneof![30 => "[a1]{0,2}".prop_map(Any::Text), 4 => scalar(), 1 => inner.clone()];
        let fields = prop::collection::vec((name.clone(), inner.clone()), 0..6);
        prop_oneof![
            inner.clone().prop_map(|value| Any::Some(Box::new(value))),
            inner.clone().prop_map(|value| Any::Newtype(Box::new(value))),
            (name.clone(), inner.clone())
                .prop_map(|(name, value)| Any::NewtypeVariant(name, Box::new(value))),
            (shape, items).prop_map(|(shape, items)| Any::Items(shape, items)),
            prop::collection::vec((key, inner), 0..5).prop_map(Any::Map),
            fields.clone().prop_map(Any::Struct),
            (name, fields).prop_map(|(name, fields)| Any::StructVariant(name, fields)),
        ]
    })
}

/// What the trees say.
fn by_trees(old: &Any, new: &Any, reveal: Reveal) -> Vec<FieldDiff> {
    match (serde_json::to_value(old), serde_json::to_value(new)) {
        (Ok(old), Ok(new)) => diff_json(&old, &new, reveal),
        _ => vec![FieldDiff::redacted("", DiffKind::Value)],
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 20 } else { 4_000 }, ..ProptestConfig::default() })]

    #[test]
    fn differences_are_those_of_the_trees(old in tree(), other in tree(), at in 0usize..12) {
        let mut near = old.clone();
        near.replace(&mut at.clone(), &other);
        for new in [&old, &near, &other] {
            for reveal in [Reveal::Values, Reveal::Paths] {
                prop_assert_eq!(diff_serialized(&old, new, reveal), by_trees(&old, new, reveal));
            }
        }
    }
}

#[test]
fn the_property_sees_values_that_serialise() {
    // Were nearly all of them to fail, the property would hold for nothing.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let trees = (0..200).map(|_| tree().new_tree(&mut runner).expect("a tree").current());
    let serialised = trees.filter(|tree| serde_json::to_value(tree).is_ok()).count();
    assert!((100..200).contains(&serialised), "{serialised} of 200");
}
