//! What every engine has to do alike, on real databases.

mod conformance;
