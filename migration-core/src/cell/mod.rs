//! Single values on their way out of a database whose columns do not decide what they hold.

pub(crate) mod sqlite;
