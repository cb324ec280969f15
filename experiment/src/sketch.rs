//! Latency sketches: percentiles within 0.8 %, in fixed memory, mergeable without loss.
//!
//! This is a DDSketch (Masson, Rim and Lee, "DDSketch: a fast and fully-mergeable quantile sketch with
//! relative-error guarantees", VLDB 2019) with its linearly interpolated mapping: each octave is cut in 64
//! equal bins, found by a shift instead of a logarithm, and the bins of nanoseconds up to 18 minutes are
//! few enough to be an array of atomics. So recording is one relaxed addition, without a lock, on a call's
//! path; sketches of all processes add up to exactly the sketch of the whole fleet.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::Error;

/// 64 bins in each octave: a bin's middle is at most 1/128 away from anything in it.
const BIN_BITS: u32 = 6;
/// 2^40 ns are 18 minutes: longer calls count as this long.
const OCTAVE_LAST: u32 = 40;
const BINS: usize = ((OCTAVE_LAST - BIN_BITS + 1) as usize) << BIN_BITS;
const ENCODING_VERSION: u8 = 1;

/// Counted latencies, as a value: merged, stored, asked for percentiles.
///
/// ```
/// use crossfade_experiment::LatencySketch;
/// use std::time::Duration;
///
/// let mut fleet = LatencySketch::default();
/// for milliseconds in 1..=1000 {
///     let mut process = LatencySketch::default();
///     process.record(Duration::from_millis(milliseconds));
///     fleet.merge(&process);
/// }
/// let p99 = fleet.quantile(0.99).unwrap().as_secs_f64();
/// assert!((p99 / 0.99 - 1.0).abs() < 0.008);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct LatencySketch {
    /// Bin and count, in order of bins, without the empty ones.
    bins: Vec<(u16, u64)>,
}

impl LatencySketch {
    /// Counts one call.
    pub fn record(&mut self, latency: Duration) {
        self.add(bin(nanoseconds(latency)) as u16, 1);
    }

    /// Adds another sketch's calls to this one's. Order does not matter, and nothing is lost.
    pub fn merge(&mut self, other: &Self) {
        for &(bin, count) in &other.bins {
            self.add(bin, count);
        }
    }

    /// The number of calls counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.bins.iter().fold(0, |sum: u64, &(_, count)| sum.saturating_add(count))
    }

    /// The latency that a share `q` (0 to 1) of the calls did not exceed, within 0.8 %; `None` where
    /// nothing was counted.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = (q.clamp(0.0, 1.0) * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0u64;
        self.bins.iter().find_map(|&(bin, count)| {
            seen = seen.saturating_add(count);
            (seen >= rank).then(|| middle(usize::from(bin)))
        })
    }

    /// The bins that hold anything, from fast to slow: their middle and their count.
    pub fn bins(&self) -> impl DoubleEndedIterator<Item = (Duration, u64)> + '_ {
        self.bins.iter().map(|&(bin, count)| (middle(usize::from(bin)), count))
    }

    /// A compact encoding: a version, then bins and counts as varints, bins as steps from the one before.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![ENCODING_VERSION];
        let mut last = 0;
        for &(bin, count) in &self.bins {
            write_varint(&mut bytes, u64::from(bin - last));
            write_varint(&mut bytes, count);
            last = bin;
        }
        bytes
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`Error::Sketch`] where the bytes are damaged or of another version; no input panics.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let Some((&ENCODING_VERSION, mut rest)) = bytes.split_first() else {
            return Err(Error::Sketch { reason: "unknown version" });
        };
        let mut bins = Vec::new();
        let mut bin = 0u64;
        while !rest.is_empty() {
            let step = read_varint(&mut rest)?;
            let count = read_varint(&mut rest)?;
            bin = bin.saturating_add(step);
            // What is beyond any bin stays beyond it.
            bins.push((u16::try_from(bin).unwrap_or(u16::MAX), count));
        }
        Self::try_from(bins)
    }

    fn add(&mut self, bin: u16, count: u64) {
        match self.bins.binary_search_by_key(&bin, |&(bin, _)| bin) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(count),
            Err(at) => self.bins.insert(at, (bin, count)),
        }
    }
}

impl TryFrom<Vec<(u16, u64)>> for LatencySketch {
    type Error = Error;

    fn try_from(bins: Vec<(u16, u64)>) -> Result<Self, Error> {
        if !bins.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(Error::Sketch { reason: "bins out of order" });
        }
        if bins.last().is_some_and(|&(bin, _)| usize::from(bin) >= BINS) {
            return Err(Error::Sketch { reason: "a bin out of range" });
        }
        Ok(Self { bins })
    }
}

impl From<LatencySketch> for Vec<(u16, u64)> {
    fn from(sketch: LatencySketch) -> Self {
        sketch.bins
    }
}

/// Which bin a latency falls into.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bin(pub(crate) u16);

impl Bin {
    #[inline]
    pub(crate) fn of(nanoseconds: u64) -> Self {
        Self(bin(nanoseconds) as u16)
    }
}

/// The sketch that calls record into, from any thread, without waiting.
#[derive(Debug)]
pub(crate) struct SharedSketch {
    bins: Box<[AtomicU64]>,
}

impl SharedSketch {
    pub(crate) fn new() -> Self {
        Self { bins: (0..BINS).map(|_| AtomicU64::new(0)).collect() }
    }

    #[inline]
    pub(crate) fn record(&self, bin: Bin) {
        self.bins[usize::from(bin.0)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was recorded so far.
    pub(crate) fn read(&self) -> LatencySketch {
        self.collect(|count| count.load(Ordering::Relaxed))
    }

    /// What was recorded since it was last taken: each call is handed out once.
    pub(crate) fn take(&self) -> LatencySketch {
        // The plain load first: nearly all bins are empty, and a swap would dirty their cache lines.
        self.collect(|count| match count.load(Ordering::Relaxed) {
            0 => 0,
            _ => count.swap(0, Ordering::Relaxed),
        })
    }

    fn collect(&self, value: impl Fn(&AtomicU64) -> u64) -> LatencySketch {
        let counted = self.bins.iter().enumerate().map(|(bin, count)| (bin as u16, value(count)));
        LatencySketch { bins: counted.filter(|&(_, count)| count > 0).collect() }
    }
}

/// Counts of many calls, gathered before they are added to a sketch that is shared: there each addition is a locked one, and
/// latencies crowd into few bins.
#[derive(Debug)]
pub(crate) struct Gathered {
    counts: Box<[u32]>,
    touched: Vec<Bin>,
}

impl Default for Gathered {
    fn default() -> Self {
        Self { counts: vec![0; BINS].into(), touched: Vec::new() }
    }
}

impl Gathered {
    #[inline]
    pub(crate) fn add(&mut self, bin: Bin) {
        let count = &mut self.counts[usize::from(bin.0)];
        if *count == 0 {
            self.touched.push(bin);
        }
        *count += 1;
    }

    /// Empties itself into the sketch.
    pub(crate) fn record_in(&mut self, sketch: &SharedSketch) {
        for bin in self.touched.drain(..) {
            let count = std::mem::take(&mut self.counts[usize::from(bin.0)]);
            sketch.bins[usize::from(bin.0)].fetch_add(count.into(), Ordering::Relaxed);
        }
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Below 64 ns each nanosecond has its own bin; above, the top seven bits name the bin.
#[inline]
fn bin(nanoseconds: u64) -> usize {
    let value = nanoseconds.min((1 << OCTAVE_LAST) - 1);
    if value < 1 << BIN_BITS {
        return value as usize;
    }
    let octave = value.ilog2() - BIN_BITS;
    ((octave as usize) << BIN_BITS) + (value >> octave) as usize
}

/// The middle of a bin.
fn middle(bin: usize) -> Duration {
    let within = (bin & ((1 << BIN_BITS) - 1)) as u64;
    match (bin >> BIN_BITS) as u32 {
        0 => Duration::from_nanos(within),
        octave => {
            let shift = octave - 1;
            let low = (within + (1 << BIN_BITS)) << shift;
            Duration::from_nanos(low + ((1 << shift) >> 1))
        }
    }
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Result<u64, Error> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((&byte, rest)) = bytes.split_first() else {
            return Err(Error::Sketch { reason: "cut off" });
        };
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Error::Sketch { reason: "a number longer than 64 bits" })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_middle_is_within_the_promised_error(value in 1u64..(1 << OCTAVE_LAST)) {
            let middle = middle(bin(value)).as_nanos() as f64;
            prop_assert!((middle / value as f64 - 1.0).abs() <= 1.0 / 128.0, "{value} became {middle}");
        }

        #[test]
        fn bins_rise_with_values(a in any::<u64>(), b in any::<u64>()) {
            prop_assert_eq!(a <= b || bin(a) >= bin(b), true);
            prop_assert!(bin(a) < BINS);
        }

        #[test]
        fn merging_equals_recording_together(a in prop::collection::vec(any::<u32>(), 0..50), b in prop::collection::vec(any::<u32>(), 0..50)) {
            let sketch = |values: &[u32]| {
                let mut sketch = LatencySketch::default();
                values.iter().for_each(|&value| sketch.record(Duration::from_nanos(value.into())));
                sketch
            };
            let mut merged = sketch(&a);
            merged.merge(&sketch(&b));
            prop_assert_eq!(&merged, &sketch(&[a, b].concat()));
            prop_assert_eq!(LatencySketch::from_bytes(&merged.to_bytes()).unwrap(), merged);
        }

        #[test]
        fn damaged_bytes_are_an_error_or_a_sketch(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(sketch) = LatencySketch::from_bytes(&bytes) {
                let _ = sketch.quantile(0.5);
            }
        }
    }

    #[test]
    fn taking_hands_each_call_out_once() {
        let shared = SharedSketch::new();
        shared.record(Bin::of(1_000));
        assert_eq!(shared.read().count(), 1);
        assert_eq!(shared.take().count(), 1);
        assert_eq!(shared.take(), LatencySketch::default());
    }
}
