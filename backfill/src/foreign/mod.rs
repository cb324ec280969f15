//! Parquet that other tools wrote, as it lies on the disk: tables of files, row groups and columns.
//!
//! Owns how such files are opened, ordered and read, and that nothing in them makes us panic or believe a length. Knows
//! nothing of comparing two of them.
//!
//! Files, in the order in which rows pass through them: `table` (all files of a side), `file` (one file), `chunk`
//! (one column of a row group, read some pages at a time), `column` and `dictionary` (what was read, and how two are compared), `pages`,
//! `page_header`, `decompress`, `hybrid` (how it is read).

mod chunk;
mod column;
mod decompress;
mod dictionary;
mod file;
mod hybrid;
mod page_header;
mod pages;
mod table;

pub(crate) use chunk::ColumnChunk;
pub(crate) use column::{RawColumn, Reading, Shape, ValueHasher};
pub(crate) use decompress::Decompressor;
pub(crate) use dictionary::Translation;
pub(crate) use file::ForeignFile;
pub(crate) use table::{ForeignTable, Group, Ordering, parquet_files};
