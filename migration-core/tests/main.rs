//! What every engine has to do alike, what only one can show, and what a scaffold is worth, on real databases.

mod conformance;
mod postgres;
mod scaffold;
