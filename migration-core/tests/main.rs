//! What every engine has to do alike, and what a scaffold is worth, on real databases.

mod conformance;
mod scaffold;
