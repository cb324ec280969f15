//! The implementation that is written.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{Data, DeriveInput, Error, Fields, Ident, Path, Result, parse_quote};

use crate::attributes::{FieldAttributes, Mode, crate_path};

pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let krate = crate_path(&input.attrs)?;
    let body = match &input.data {
        Data::Struct(data) => {
            let (old, new) = (bindings(&data.fields, "old"), bindings(&data.fields, "new"));
            let compared = compare_fields(&data.fields, &krate, None)?;
            let (old, new) = (pattern(&data.fields, &old), pattern(&data.fields, &new));
            quote! {
                let Self #old = self;
                let Self #new = other;
                #compared
            }
        }
        Data::Enum(data) => {
            let arms = data
                .variants
                .iter()
                .map(|variant| {
                    let name = &variant.ident;
                    let (old, new) = (bindings(&variant.fields, "old"), bindings(&variant.fields, "new"));
                    let compared = compare_fields(&variant.fields, &krate, Some(name))?;
                    let (old, new) = (pattern(&variant.fields, &old), pattern(&variant.fields, &new));
                    Ok(quote! { (Self::#name #old, Self::#name #new) => { #compared } })
                })
                .collect::<Result<Vec<_>>>()?;
            let names = data.variants.iter().map(|variant| {
                let (name, text) = (&variant.ident, variant.ident.to_string());
                quote! { Self::#name { .. } => #text }
            });
            let others = (data.variants.len() > 1).then(|| {
                quote! { (old, new) => __differences.variants(__name(old), __name(new)), }
            });
            quote! {
                let __name = |value: &Self| match *value { #(#names,)* };
                match (self, other) { #(#arms)* #others }
            }
        }
        Data::Union(_) => return Err(Error::new_spanned(&input.ident, "unions have no fields to compare")),
    };

    let mut generics = input.generics.clone();
    for parameter in input.generics.type_params() {
        let name = &parameter.ident;
        generics.make_where_clause().predicates.push(parse_quote!(#name: #krate::Diff));
    }
    let (implemented, parameters, bounds) = generics.split_for_impl();
    let name = &input.ident;
    Ok(quote! {
        #[automatically_derived]
        impl #implemented #krate::Diff for #name #parameters #bounds {
            #[allow(unused_variables, clippy::all)]
            fn diff(&self, other: &Self, __differences: &mut #krate::Differences) {
                #body
            }
        }
    })
}

fn bindings(fields: &Fields, side: &str) -> Vec<Ident> {
    (0..fields.len()).map(|at| format_ident!("__{side}_{at}", span = Span::call_site())).collect()
}

/// Takes a value apart, each field under its binding.
fn pattern(fields: &Fields, bindings: &[Ident]) -> TokenStream {
    match fields {
        Fields::Unit => quote!(),
        Fields::Unnamed(_) => quote! { ( #(#bindings),* ) },
        Fields::Named(named) => {
            let names = named.named.iter().map(|field| &field.ident);
            quote! { { #(#names: #bindings),* } }
        }
    }
}

fn compare_fields(fields: &Fields, krate: &Path, variant: Option<&Ident>) -> Result<TokenStream> {
    let mut compared = TokenStream::new();
    for (at, field) in fields.iter().enumerate() {
        let attributes = FieldAttributes::parse(&field.attrs)?;
        let (old, new) = (format_ident!("__old_{at}"), format_ident!("__new_{at}"));
        let name = match (&attributes.rename, &field.ident) {
            (Some(rename), _) => rename.clone(),
            (None, Some(name)) => name.to_string().trim_start_matches("r#").to_owned(),
            (None, None) => at.to_string(),
        };
        let path = match variant {
            Some(variant) => format!("{variant}.{name}"),
            None => name,
        };
        let compare = match attributes.mode {
            Mode::Ignored => continue,
            Mode::Nested => quote! { #krate::Diff::diff(#old, #new, __differences) },
            Mode::Unordered => quote! { __differences.unordered(#old, #new) },
            Mode::Leaf => quote! { __differences.leaf(#old, #new) },
            Mode::Tolerance(tolerance) => {
                quote! { #krate::Approximate::diff_within(#old, #new, #tolerance, __differences) }
            }
        };
        compared.extend(quote! { __differences.at_field(#path, |__differences| #compare); });
    }
    Ok(compared)
}
