//! `#[derive(Diff)]`: see `crossfade_experiment::Diff`, which this implements.

mod attributes;
mod expand;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Implements `Diff` field by field.
///
/// On fields: `#[diff(ignore)]` leaves it out; `#[diff(tolerance = 0.01)]` lets numbers differ by so much;
/// `#[diff(unordered)]` compares a sequence as a bag; `#[diff(rename = "name")]` names it in paths;
/// `#[diff(leaf)]` compares it as a whole by `==` and shows it by `Debug`, for types that are not `Diff`.
/// On the type: `#[diff(crate = "path")]` where the crate goes by another path.
#[proc_macro_derive(Diff, attributes(diff))]
pub fn derive_diff(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::expand(&input).unwrap_or_else(|error| error.to_compile_error()).into()
}
