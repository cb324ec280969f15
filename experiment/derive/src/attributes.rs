//! What `#[diff(…)]` says.

use syn::{Attribute, Error, Expr, LitStr, Path, Result};

/// How a field is compared.
#[derive(Default)]
pub(crate) enum Mode {
    #[default]
    Nested,
    Ignored,
    Tolerance(Box<Expr>),
    Unordered,
    Leaf,
}

/// What is said about a field.
#[derive(Default)]
pub(crate) struct FieldAttributes {
    pub(crate) mode: Mode,
    pub(crate) rename: Option<String>,
}

impl FieldAttributes {
    pub(crate) fn parse(attributes: &[Attribute]) -> Result<Self> {
        let mut parsed = Self::default();
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("diff")) {
            attribute.parse_nested_meta(|meta| {
                let mode = if meta.path.is_ident("rename") {
                    parsed.rename = Some(meta.value()?.parse::<LitStr>()?.value());
                    return Ok(());
                } else if meta.path.is_ident("ignore") {
                    Mode::Ignored
                } else if meta.path.is_ident("tolerance") {
                    Mode::Tolerance(meta.value()?.parse()?)
                } else if meta.path.is_ident("unordered") {
                    Mode::Unordered
                } else if meta.path.is_ident("leaf") {
                    Mode::Leaf
                } else {
                    let known = "`ignore`, `tolerance = …`, `unordered`, `rename = \"…\"` or `leaf`";
                    return Err(meta.error(format!("expected {known}")));
                };
                if !matches!(parsed.mode, Mode::Nested) {
                    return Err(meta.error("a field is compared in one way only"));
                }
                parsed.mode = mode;
                Ok(())
            })?;
        }
        Ok(parsed)
    }
}

/// The path of the crate, where the type says that it is another.
pub(crate) fn crate_path(attributes: &[Attribute]) -> Result<Path> {
    let mut path = syn::parse_quote!(::crossfade_experiment);
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("diff")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(Error::new_spanned(&meta.path, "expected `crate = \"…\"`"));
            }
            path = meta.value()?.parse::<LitStr>()?.parse()?;
            Ok(())
        })?;
    }
    Ok(path)
}
