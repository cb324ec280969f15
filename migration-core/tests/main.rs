//! What every engine has to do alike, what only one of them can show, and what a scaffold is worth, on
//! real databases.

mod conformance;
mod postgres;
mod properties;
mod races;
mod scaffold;
