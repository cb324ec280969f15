//! How long it takes to read and decompress the pages of some files, and nothing else.

use std::error::Error;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};

/// Of this column, or of all.
pub(crate) fn run(
    paths: &[PathBuf],
    column: Option<&str>,
    threads: NonZeroUsize,
) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let open = || -> Result<Vec<_>, ParquetError> {
        paths.iter().map(|path| SerializedFileReader::new(File::open(path)?)).collect()
    };
    let groups: Vec<(usize, usize)> = open()?
        .iter()
        .enumerate()
        .flat_map(|(file, reader)| (0..reader.metadata().num_row_groups()).map(move |group| (file, group)))
        .collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.get())
            .map(|_| {
                scope.spawn(|| -> Result<usize, ParquetError> {
                    // Of its own, because a file that is shared has one position for all.
                    let files = open()?;
                    let mut bytes = 0;
                    while let Some(&(file, group)) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let group = files[file].get_row_group(group)?;
                        for number in 0..group.num_columns() {
                            let name = group.metadata().column(number).column_path().string();
                            if column.is_some_and(|column| column != name) {
                                continue;
                            }
                            let mut pages = group.get_column_page_reader(number)?;
                            while let Some(page) = pages.get_next_page()? {
                                bytes += page.buffer().len();
                            }
                        }
                    }
                    Ok(bytes)
                })
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| "a thread panicked")??;
        }
        Ok::<(), Box<dyn Error>>(())
    })?;
    let figures = serde_json::json!({
        "seconds": start.elapsed().as_secs_f64(),
        "cpu_seconds": crate::cpu_seconds()?,
        "memory_bytes_max": crate::memory_bytes_max()?,
    });
    println!("{figures}");
    Ok(())
}
