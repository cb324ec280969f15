//! Functions of a projection for JSON that is kept as text.
//!
//! | function | gives |
//! | --- | --- |
//! | `json_elements(json)` | the elements of an array as a list of JSON texts, for `unnest` |
//! | `json_text(json, key, …)` | what is at a path of names and positions, as text: a string without its quotes, anything else as it is written |
//!
//! NULL where there is nothing, or a JSON null; an error where the text is no JSON. Numbers keep the digits that they are
//! written with, so that `cast(json_text(j, 'amount') as decimal(12, 2))` loses none.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::cast::AsArray;
use arrow::array::{Array, ArrayRef, ListBuilder, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field};
use datafusion::common::exec_datafusion_err;
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use serde_json::value::RawValue;

/// How much of a text that is no JSON its error shows.
const SHOWN_CHARACTERS: usize = 40;

/// All functions, to be registered.
pub(super) fn functions() -> [ScalarUDF; 2] {
    [JsonElements::new().into(), JsonText::new().into()]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonElements {
    signature: Signature,
}

impl JsonElements {
    fn new() -> Self {
        Self { signature: Signature::string(1, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for JsonElements {
    fn name(&self) -> &str {
        "json_elements"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [json] = texts(&arguments)?
            .try_into()
            .map_err(|_| exec_datafusion_err!("json_elements takes one text"))?;
        let json = json.as_string::<i32>();
        let mut lists = ListBuilder::new(StringBuilder::new());
        for text in json {
            let elements = text.map(parse::<Option<Vec<&RawValue>>>).transpose()?.flatten();
            lists.append_option(
                elements.map(|elements| elements.into_iter().map(|element| Some(element.get()))),
            );
        }
        Ok(ColumnarValue::Array(Arc::new(lists.finish())))
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonText {
    signature: Signature,
}

impl JsonText {
    fn new() -> Self {
        let some_texts = TypeSignature::Variadic(vec![DataType::Utf8]);
        Self { signature: Signature::new(some_texts, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for JsonText {
    fn name(&self) -> &str {
        "json_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let texts = texts(&arguments)?;
        let Some((json, path)) = texts.split_first() else {
            return Err(exec_datafusion_err!("json_text takes a text and the path to what is wanted of it"));
        };
        let json = json.as_string::<i32>();
        let mut found = StringBuilder::new();
        for row in 0..json.len() {
            let steps = path.iter().map(|steps| {
                let steps = steps.as_string::<i32>();
                steps.is_valid(row).then(|| steps.value(row))
            });
            let whole = json.is_valid(row).then(|| json.value(row));
            found.append_option(whole.map(|json| at(json, steps)).transpose()?.flatten());
        }
        Ok(ColumnarValue::Array(Arc::new(found.finish())))
    }
}

/// What is at a path, as text.
fn at<'a>(json: &str, steps: impl Iterator<Item = Option<&'a str>>) -> Result<Option<String>> {
    let mut here = parse::<&RawValue>(json)?.get();
    for step in steps {
        let Some(step) = step else { return Ok(None) };
        let found = match here.as_bytes().first() {
            Some(b'{') => parse::<HashMap<String, &RawValue>>(here)?.remove(step),
            Some(b'[') => {
                let elements = parse::<Vec<&RawValue>>(here)?;
                step.parse().ok().and_then(|position: usize| elements.get(position).copied())
            }
            _ => None,
        };
        let Some(found) = found else { return Ok(None) };
        here = found.get();
    }
    match here.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => parse::<String>(here).map(Some),
        _ => Ok(Some(here.to_owned())),
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(json: &'a str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| {
        let shown: String = json.chars().take(SHOWN_CHARACTERS).collect();
        exec_datafusion_err!("{shown:?} is not the JSON that is asked for: {error}")
    })
}

/// All arguments as texts of one length.
fn texts(arguments: &ScalarFunctionArgs) -> Result<Vec<ArrayRef>> {
    ColumnarValue::values_to_arrays(&arguments.args)?
        .iter()
        .map(|array| match array.data_type() {
            DataType::Utf8 => Ok(array.clone()),
            _ => Ok(cast(array, &DataType::Utf8)?),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_and_position() {
        let json = r#"{"a": [1.10, {"b": "x\"y"}, null, true], "b": 10000000000000000000000}"#;
        let at = |path: &[&str]| at(json, path.iter().copied().map(Some)).unwrap();
        assert_eq!(at(&["a", "0"]).as_deref(), Some("1.10"), "digits stay");
        assert_eq!(at(&["a", "1", "b"]).as_deref(), Some("x\"y"));
        assert_eq!(at(&["a", "1"]).as_deref(), Some(r#"{"b": "x\"y"}"#));
        assert_eq!(at(&["a", "3"]).as_deref(), Some("true"));
        assert_eq!(at(&["b"]).as_deref(), Some("10000000000000000000000"));
        for nothing in [&["a", "2"][..], &["a", "9"], &["a", "x"], &["c"], &["b", "c"]] {
            assert_eq!(at(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn what_is_no_json_is_an_error_that_shows_it() {
        let error = at("{\"a\": ", [Some("a")].into_iter()).unwrap_err().to_string();
        assert!(error.contains("{\\\"a\\\": "), "{error}");
    }
}
