//! What the text of a projection says of where its rows come from. Anything that is not understood is no answer, and
//! everything goes on without it.

pub(crate) mod postgres;
pub(crate) mod row_by_row;
