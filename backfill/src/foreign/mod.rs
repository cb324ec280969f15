//! Parquet that other tools wrote, as it lies on the disk: tables of files, row groups and columns.
//!
//! Owns how such files are opened, ordered and read, and that nothing in them makes us panic or believe a length. Knows
//! nothing of comparing two of them.
//!
//! Files, in the order in which rows pass through them: `table` (all files of a side), `file` (one file), `column` (one
//! column of a row group), `page_header`, `decompress`, `hybrid` (what pages are made of).

mod column;
mod decompress;
mod file;
mod hybrid;
mod page_header;
mod table;

pub(crate) use column::{RawColumn, Reading, Shape, Translation};
pub(crate) use decompress::Decompressor;
pub(crate) use table::{ForeignTable, Ordering, parquet_files};
