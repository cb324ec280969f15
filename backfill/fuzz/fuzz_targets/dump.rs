//! A dump of another tool with bytes changed wherever the fuzzer likes: findings or an error, and never a panic.

#![no_main]

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use crossfade_backfill::scan::{Compared, DumpOrder, DumpOrigin, Dumps, ScanOptions, scan_dumps};
use libfuzzer_sys::fuzz_target;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterVersion};

struct Fixture {
    folder: tempfile::TempDir,
    dumps: Dumps,
    /// The same rows as several tools would write them.
    written: Vec<Vec<u8>>,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let mut written = Vec::new();
    let codecs = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::ZSTD(Default::default()),
        Compression::GZIP(Default::default()),
        Compression::LZ4_RAW,
    ];
    for compression in codecs {
        for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
            let file = path(&format!("{}.parquet", written.len()));
            write(&file, compression, version);
            written.push(fs::read(file).expect("the file was just written"));
        }
    }
    write(&path("old.parquet"), Compression::SNAPPY, WriterVersion::PARQUET_1_0);
    let dumps = Dumps {
        old: path("old.parquet"),
        new: path("new.parquet"),
        key: vec!["id".into()],
        scope_columns: 1,
        compared: Compared::AllColumns,
        order: DumpOrder::Detect,
        origin: DumpOrigin::default(),
    };
    Fixture { folder, dumps, written }
});

fuzz_target!(
    init: {
        // The decoder's panics on damaged pages are contained by the reader. Its own failures abort below.
        std::panic::set_hook(Box::new(|_| {}));
    },
    |input: (u8, bool, Vec<(u16, u8)>)| {
        let (file, in_order, edits) = input;
        let fixture = &*FIXTURE;
        let mut damaged = fixture.written[usize::from(file) % fixture.written.len()].clone();
        for (position, mask) in edits {
            let position = usize::from(position) % damaged.len();
            damaged[position] ^= mask;
        }
        fs::write(&fixture.dumps.new, &damaged).expect("the file can be written");
        let findings = fixture.folder.path().join("findings");
        let _ = fs::remove_dir_all(&findings);
        let order = if in_order { DumpOrder::Detect } else { DumpOrder::Unordered };
        let dumps = Dumps { order, ..fixture.dumps.clone() };
        let result = std::panic::catch_unwind(|| {
            scan_dumps(&dumps, &findings, &ScanOptions::default(), &|_| ControlFlow::Continue(()))
        });
        if result.is_err() {
            std::process::abort();
        }
    }
);

fn write(path: &PathBuf, compression: Compression, version: WriterVersion) {
    let ids: ArrayRef = Arc::new((0..200).collect::<Int64Array>());
    let plans = (0..200).map(|id| (id % 9 != 0).then_some(if id % 2 == 0 { "basic" } else { "pro" }));
    let plans: ArrayRef = Arc::new(plans.collect::<StringArray>());
    let notes: ArrayRef = Arc::new((0..200).map(|id| Some(format!("note {id}"))).collect::<StringArray>());
    let batch = RecordBatch::try_from_iter([("id", ids), ("plan", plans), ("note", notes)]).expect("one length");
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .set_writer_version(version)
        .set_max_row_group_row_count(Some(64))
        .build();
    let file = File::create(path).expect("the disk has room");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), Some(properties)).expect("columns that Parquet has");
    writer.write(&batch).expect("rows of the schema");
    writer.close().expect("the disk has room");
}
